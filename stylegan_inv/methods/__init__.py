"""One file per paper; each holds one :class:`~stylegan_inv.methods.base.InversionMethod`."""

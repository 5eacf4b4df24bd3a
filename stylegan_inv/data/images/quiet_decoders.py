"""Keeps image decoders from printing: what is wrong with a file is said in the line of its error."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import warnings

from PIL import Image

#: libtiff's functions that replace what prints errors and warnings.
_TIFF_HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandlerExt")


@functools.cache
def silence_decoders() -> None:
    """Silences libtiff and Pillow in this process.

    libtiff prints to standard error by itself, which only its own functions change. They are looked up in the library
    that Pillow has loaded, also where it is another one than that of the system; without them the lines stay.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if not hasattr(os, "RTLD_NOLOAD"):  # Windows
        return
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(Image.core.__file__, mode=os.RTLD_NOLOAD | os.RTLD_LOCAL | os.RTLD_NOW)
        for name in _TIFF_HANDLERS:
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
            function(None)

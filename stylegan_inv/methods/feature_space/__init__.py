"""Methods that replace feature maps of the generator, one file per paper."""

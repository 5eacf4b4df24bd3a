"""The command that finds editing directions: InterFaceGAN, difference of means, SeFa, GANSpace."""

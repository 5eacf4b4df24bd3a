"""Find editing directions: InterFaceGAN, difference of means, SeFa, GANSpace."""

"""Maps names that version 0.1 wrote into run folders to the present ones."""

from __future__ import annotations

from typing import Any

#: ``_target_`` of version 0.1 -> public name.
TARGETS = {
    "stylegan_inv.callbacks.artifacts.Artifacts": "stylegan_inv.callbacks.Artifacts",
    "stylegan_inv.callbacks.checkpoints.Checkpoints": "stylegan_inv.callbacks.Checkpoints",
    "stylegan_inv.callbacks.codes.Codes": "stylegan_inv.callbacks.LatentCodes",
    "stylegan_inv.callbacks.exact.ExactSteps": "stylegan_inv.callbacks.ReproducibleSteps",
    "stylegan_inv.callbacks.graceful_stop.GracefulStop": "stylegan_inv.callbacks.GracefulStop",
    "stylegan_inv.callbacks.gradient_norm.GradientNorm": "stylegan_inv.callbacks.GradientNorm",
    "stylegan_inv.callbacks.learning_rate.LearningRate": "stylegan_inv.callbacks.LearningRate",
    "stylegan_inv.callbacks.non_finite.SkipNonFinite": "stylegan_inv.callbacks.SkipNonFinite",
    "stylegan_inv.callbacks.panels.Panels": "stylegan_inv.callbacks.Panels",
    "stylegan_inv.callbacks.progress.progress_bar": "stylegan_inv.callbacks.progress_bar",
    "stylegan_inv.callbacks.rank_consistency.RankConsistency": "stylegan_inv.callbacks.RankConsistency",
    "stylegan_inv.callbacks.throughput.Throughput": "stylegan_inv.callbacks.Throughput",
    "stylegan_inv.callbacks.worst_images.WorstImages": "stylegan_inv.callbacks.WorstReconstructions",
    "stylegan_inv.data.afhq.AFHQDataModule": "stylegan_inv.data.AFHQDataModule",
    "stylegan_inv.data.augment.ADA": "stylegan_inv.data.ADA",
    "stylegan_inv.data.cache.CachedFacesDataModule": "stylegan_inv.data.CachedSynthFacesDataModule",
    "stylegan_inv.data.cars.CarsDataModule": "stylegan_inv.data.CarsDataModule",
    "stylegan_inv.data.cartoon.Cartoon": "stylegan_inv.data.Cartoon",
    "stylegan_inv.data.celeba_hq.CelebAHQDataModule": "stylegan_inv.data.CelebAHQDataModule",
    "stylegan_inv.data.celeba_hq.FFHQCelebAHQDataModule": "stylegan_inv.data.FFHQCelebAHQDataModule",
    "stylegan_inv.data.diffaugment.DiffAugment": "stylegan_inv.data.DiffAugment",
    "stylegan_inv.data.faces.FacesDataModule": "stylegan_inv.data.SynthFacesDataModule",
    "stylegan_inv.data.folders.FolderDataModule": "stylegan_inv.data.FolderDataModule",
    "stylegan_inv.data.identities.PeopleDataModule": "stylegan_inv.data.PeopleDataModule",
    "stylegan_inv.data.lsun.LSUNDataModule": "stylegan_inv.data.LSUNDataModule",
    "stylegan_inv.data.paired.PairedFacesDataModule": "stylegan_inv.data.PairedSynthFacesDataModule",
    "stylegan_inv.data.paired.PairedFolderDataModule": "stylegan_inv.data.PairedFolderDataModule",
    "stylegan_inv.data.synthfaces_factors.VECTOR_NAMES": "stylegan_inv.data.VECTOR_NAMES",
    "stylegan_inv.data.synthfaces_features.factor_features": "stylegan_inv.data.factor_features",
    "stylegan_inv.data.synthfaces_features.factor_knots": "stylegan_inv.data.factor_knots",
    "stylegan_inv.data.tasks.Colorization": "stylegan_inv.data.Colorization",
    "stylegan_inv.data.tasks.Denoising": "stylegan_inv.data.Denoising",
    "stylegan_inv.data.tasks.Frontalization": "stylegan_inv.data.Frontalization",
    "stylegan_inv.data.tasks.Inpainting": "stylegan_inv.data.Inpainting",
    "stylegan_inv.data.tasks.SegmentationToFace": "stylegan_inv.data.SegmentationToFace",
    "stylegan_inv.data.tasks.SketchToFace": "stylegan_inv.data.SketchToFace",
    "stylegan_inv.data.tasks.SuperResolution": "stylegan_inv.data.SuperResolution",
    "stylegan_inv.encoders.face.FaceNetwork": "stylegan_inv.encoders.FaceNetwork",
    "stylegan_inv.encoders.face.load_face_network": "stylegan_inv.encoders.load_face_network",
    "stylegan_inv.encoders.factor_embedding.FactorEmbedding": "stylegan_inv.encoders.FactorEmbedding",
    "stylegan_inv.encoders.fpn.FPNEncoder": "stylegan_inv.encoders.FPNEncoder",
    "stylegan_inv.encoders.irse.ir_se": "stylegan_inv.encoders.ir_se",
    "stylegan_inv.encoders.last_layer.LastLayerEncoder": "stylegan_inv.encoders.LastLayerEncoder",
    "stylegan_inv.encoders.resnet34.resnet34": "stylegan_inv.encoders.resnet34",
    "stylegan_inv.encoders.single_level.SingleLevelEncoder": "stylegan_inv.encoders.SingleLevelEncoder",
    "stylegan_inv.encoders.single_w.SingleWEncoder": "stylegan_inv.encoders.SingleWEncoder",
    "stylegan_inv.encoders.small.SmallEncoder": "stylegan_inv.encoders.SmallEncoder",
    "stylegan_inv.generators.finetune.finetuned": "stylegan_inv.generators.finetuned",
    "stylegan_inv.latents.edits.mix.Mix": "stylegan_inv.latents.edits.Mix",
    "stylegan_inv.latents.edits.morph.Morph": "stylegan_inv.latents.edits.Morph",
    "stylegan_inv.latents.edits.neighbours.Neighbours": "stylegan_inv.latents.edits.Neighbours",
    "stylegan_inv.latents.edits.noise.Noise": "stylegan_inv.latents.edits.Noise",
    "stylegan_inv.latents.edits.shift.Shift": "stylegan_inv.latents.edits.Shift",
    "stylegan_inv.latents.edits.truncate.Truncate": "stylegan_inv.latents.edits.Truncate",
    "stylegan_inv.losses.adversarial.AdversarialLoss": "stylegan_inv.losses.AdversarialLoss",
    "stylegan_inv.losses.arcface.ArcFaceLoss": "stylegan_inv.losses.ArcFaceLoss",
    "stylegan_inv.losses.arcface.load_arcface": "stylegan_inv.losses.load_arcface",
    "stylegan_inv.losses.features.EmbeddedFeatures": "stylegan_inv.losses.EmbeddedFeatures",
    "stylegan_inv.losses.features.LpipsFeatures": "stylegan_inv.losses.LpipsFeatures",
    "stylegan_inv.losses.features.Vgg16Features": "stylegan_inv.losses.Vgg16Features",
    "stylegan_inv.losses.identity.IdentityLoss": "stylegan_inv.losses.IdentityLoss",
    "stylegan_inv.losses.lpips.LPIPS": "stylegan_inv.losses.LPIPS",
    "stylegan_inv.losses.mixing.StyleMixing": "stylegan_inv.losses.StyleMixing",
    "stylegan_inv.losses.moco.MoCoLoss": "stylegan_inv.losses.MoCoLoss",
    "stylegan_inv.losses.paired.PairedRegression": "stylegan_inv.losses.PairedRegression",
    "stylegan_inv.losses.paired.PairedWarmStart": "stylegan_inv.losses.PairedWarmStart",
    "stylegan_inv.losses.perceptual.EmbeddedPerceptual": "stylegan_inv.losses.EmbeddedPerceptual",
    "stylegan_inv.losses.pixel.L2": "stylegan_inv.losses.L2",
    "stylegan_inv.losses.latent.regularization.DeltaNorm": "stylegan_inv.losses.DeltaNorm",
    "stylegan_inv.losses.latent.regularization.WNorm": "stylegan_inv.losses.WNorm",
    "stylegan_inv.methods.descent.EarlyStop": "stylegan_inv.optim.EarlyStop",
    "stylegan_inv.methods.e4e.E4E": "stylegan_inv.methods.E4E",
    "stylegan_inv.methods.face_network.FaceNetworkTraining": "stylegan_inv.methods.FaceNetworkTraining",
    "stylegan_inv.methods.feature_transfer.FeatureTransfer": "stylegan_inv.methods.FeatureTransfer",
    "stylegan_inv.methods.image2stylegan.Image2StyleGAN": "stylegan_inv.methods.Image2StyleGAN",
    "stylegan_inv.methods.image2stylegan_pp.Image2StyleGANPP": "stylegan_inv.methods.Image2StyleGANPP",
    "stylegan_inv.methods.image2stylegan_pp.Part": "stylegan_inv.methods.EmbeddingStage",
    "stylegan_inv.methods.interestyle.IntereStyle": "stylegan_inv.methods.IntereStyle",
    "stylegan_inv.methods.interestyle_dual.IntereStyleDual": "stylegan_inv.methods.IntereStyleDual",
    "stylegan_inv.methods.latent_adversary.LatentAdversary": "stylegan_inv.methods.LatentDiscriminatorTraining",
    "stylegan_inv.methods.paired_stylegan2.PairedStyleGAN2Training": "stylegan_inv.methods.PairedStyleGAN2Training",
    "stylegan_inv.methods.projector.Projector": "stylegan_inv.methods.Projector",
    "stylegan_inv.methods.psp.PSP": "stylegan_inv.methods.PSP",
    "stylegan_inv.methods.pti.Locality": "stylegan_inv.methods.Locality",
    "stylegan_inv.methods.pti.PTI": "stylegan_inv.methods.PTI",
    "stylegan_inv.methods.ranger.Ranger": "stylegan_inv.optim.Ranger",
    "stylegan_inv.methods.restyle.ReStyle": "stylegan_inv.methods.ReStyle",
    "stylegan_inv.methods.restyle_e4e.ReStyleE4E": "stylegan_inv.methods.ReStyleE4E",
    "stylegan_inv.methods.schedules.ProgressiveStages": "stylegan_inv.optim.ProgressiveStages",
    "stylegan_inv.methods.schedules.warmup_cosine": "stylegan_inv.optim.warmup_cosine",
    "stylegan_inv.methods.stylegan2.StyleGAN2Training": "stylegan_inv.methods.StyleGAN2Training",
    "stylegan_inv.methods.stylized_stylegan2.StylizedStyleGAN2": "stylegan_inv.methods.StylizedStyleGAN2",
    "stylegan_inv.metrics.fid.FID": "stylegan_inv.metrics.FID",
    "stylegan_inv.metrics.fid.KID": "stylegan_inv.metrics.KID",
    "stylegan_inv.metrics.frechet.FrechetDistance": "stylegan_inv.metrics.FrechetDistance",
    "stylegan_inv.metrics.identity.IdentitySimilarity": "stylegan_inv.metrics.IdentitySimilarity",
    "stylegan_inv.metrics.image.MSE": "stylegan_inv.metrics.MSE",
    "stylegan_inv.metrics.image.MSSSIM": "stylegan_inv.metrics.MSSSIM",
    "stylegan_inv.metrics.image.PSNR": "stylegan_inv.metrics.PSNR",
    "stylegan_inv.metrics.image.SSIM": "stylegan_inv.metrics.SSIM",
    "stylegan_inv.metrics.kernel.KernelDistance": "stylegan_inv.metrics.KernelDistance",
    "stylegan_inv.metrics.latent.CodeSpread": "stylegan_inv.metrics.CodeSpread",
    "stylegan_inv.metrics.latent.DistanceToW": "stylegan_inv.metrics.DistanceToW",
    "stylegan_inv.metrics.perceptual.EmbeddedPerceptualDistance": "stylegan_inv.metrics.EmbeddedPerceptualDistance",
    "stylegan_inv.metrics.perceptual.LPIPSDistance": "stylegan_inv.metrics.LPIPSDistance",
    "stylegan_inv.metrics.precision_recall.PrecisionRecall": "stylegan_inv.metrics.PrecisionRecall",
    "stylegan_inv.metrics.recognition.load_curricularface": "stylegan_inv.metrics.load_curricularface",
    "stylegan_inv.runtime.loggers.make_loggers": "stylegan_inv.runtime.make_loggers",
    "stylegan_inv.sweeps.summary.SweepSummary": "stylegan_inv.sweeps.SweepSummary",
}


#: Public name -> argument of version 0.1 -> its name now.
ARGUMENTS: dict[str, dict[str, str]] = {
    "stylegan_inv.data.AFHQDataModule": {"val_share": "val_fraction", "domains": "animals"},
    "stylegan_inv.data.CarsDataModule": {"val_share": "val_fraction"},
    "stylegan_inv.data.Cartoon": {"steps": "levels"},
    "stylegan_inv.data.CelebAHQDataModule": {"val_share": "val_fraction"},
    "stylegan_inv.data.Denoising": {"share": "fraction"},
    "stylegan_inv.data.FFHQCelebAHQDataModule": {"val_share": "val_fraction"},
    "stylegan_inv.data.FolderDataModule": {"val_share": "val_fraction"},
    "stylegan_inv.data.LSUNDataModule": {"val_share": "val_fraction"},
    "stylegan_inv.data.PairedFolderDataModule": {"val_share": "val_fraction"},
    "stylegan_inv.data.PeopleDataModule": {"pictures": "images_per_person"},
    "stylegan_inv.optim.warmup_cosine": {"final_share": "end_factor"},
    "stylegan_inv.methods.EmbeddingStage": {
        "vary": "variable",
        "rate": "lr",
        "pixel_second": "pixel_reference",
        "perceptual_second": "perceptual_reference",
        "second": "reference",
        "stop": "early_stop",
    },
    "stylegan_inv.methods.FeatureTransfer": {"parts": "stages"},
    "stylegan_inv.methods.Image2StyleGAN": {"rate": "lr", "stop": "early_stop"},
    "stylegan_inv.methods.Image2StyleGANPP": {"parts": "stages"},
    "stylegan_inv.methods.PTI": {"rate": "lr", "goal": "distance_threshold"},
    "stylegan_inv.methods.Projector": {
        "rate": "lr",
        "ramp_up": "lr_rampup_length",
        "ramp_down": "lr_rampdown_length",
        "code_noise": "initial_noise_factor",
        "code_noise_share": "noise_ramp_length",
        "noise_regularization": "regularize_noise_weight",
        "samples": "w_avg_samples",
        "stop": "early_stop",
    },
    "stylegan_inv.optim.EarlyStop": {
        "patience_steps": "patience",
        "least_gain": "min_delta",
        "goal": "loss_threshold",
    },
}

#: Public name -> argument (as it is called now) -> word of version 0.1 -> the word now.
VALUES: dict[str, dict[str, dict[str, str]]] = {
    "stylegan_inv.losses.AdversarialLoss": {"kind": {"logistic": "nonsaturating"}},
    "stylegan_inv.methods.EmbeddingStage": {"reference": {"given": "image", "before": "initial"}},
    "stylegan_inv.methods.PairedStyleGAN2Training": {"loss": {"logistic": "nonsaturating"}},
    "stylegan_inv.methods.StyleGAN2Training": {"loss": {"logistic": "nonsaturating"}},
    "stylegan_inv.methods.StylizedStyleGAN2": {"loss": {"logistic": "nonsaturating"}},
}


def replace_old_names(node: Any) -> Any:
    """Returns a config in which names of earlier versions are replaced by those of this one.

    Args:
        node: Plain containers, as ``OmegaConf.to_container`` returns them.
    """
    if isinstance(node, dict):
        target = node.get("_target_")
        name = TARGETS.get(target, target) if isinstance(target, str) else ""
        arguments, words = ARGUMENTS.get(name, {}), VALUES.get(name, {})
        new = {arguments.get(key, key): replace_old_names(value) for key, value in node.items()}
        return {
            key: words[key].get(value, value) if key in words and isinstance(value, str) else value
            for key, value in new.items()
        }
    if isinstance(node, list):
        return [replace_old_names(value) for value in node]
    return TARGETS.get(node, node) if isinstance(node, str) else node

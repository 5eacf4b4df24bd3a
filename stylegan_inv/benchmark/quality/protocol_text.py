"""The protocol of the comparison, as it is printed with the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from stylegan_inv.benchmark.quality.compared_methods import BY_NAME, TRAINED, Budget
from stylegan_inv.benchmark.quality.method_scores import STRENGTH
from stylegan_inv.benchmark.quality.score_method import CONSISTENCY


@dataclass(frozen=True)
class ComparisonProtocol:
    """What was compared.

    Attributes:
        seeds: Training seeds.
        faces: Number of held-out faces for trained methods.
        per_image_faces: Number of faces for methods that optimise each face.
        edited_faces: Largest number of faces that are edited.
        default_budget: Whether the trainings are those of the recipes.
        trained_seeds: Trained method -> number of seeds, where seeds are missing.
        torch_version: Version of PyTorch.
        threads: Number of threads.
    """

    seeds: Sequence[int]
    faces: int
    per_image_faces: int
    edited_faces: int
    default_budget: bool
    trained_seeds: Mapping[str, int]
    torch_version: str
    threads: int

    @staticmethod
    def of(budget: Budget, seeds: Sequence[int], counts: Mapping[str, int]) -> ComparisonProtocol:
        """Returns the protocol of this process.

        Args:
            budget: Size of the trainings and of the test.
            seeds: Training seeds.
            counts: Method -> number of seeds that were scored.
        """
        trained = {name: count for name, count in counts.items() if BY_NAME[name].kind == TRAINED}
        return ComparisonProtocol(
            list(seeds),
            budget.faces,
            min(budget.faces, budget.per_image_faces),
            budget.edited_faces,
            not budget.training,
            {name: count for name, count in trained.items() if count < len(seeds)},
            torch.__version__,
            torch.get_num_threads(),
        )

    def describe(self) -> dict[str, str]:
        """Returns label -> text."""
        missing = [f"{BY_NAME[name].title}: {count} of {len(self.seeds)}" for name, count in self.trained_seeds.items()]
        direction, strength = CONSISTENCY
        return {
            "budget": "16,000 passes of encoder and generator for each trained method: 2,000 steps of 8 images with "
            "one pass, or 400 steps of 8 images with five" + ("" if self.default_budget else "; changed in this run"),
            "training seeds": "; ".join([", ".join(map(str, self.seeds)), *missing]),
            "faces": f"{self.faces} held-out faces (seed 2), without and with an obstacle; the first "
            f"{self.per_image_faces} of them for methods that optimise each face, which are not trained and use one "
            "seed",
            "figures": "mean ± half the 95 % confidence interval (bootstrap over seeds and faces); in brackets the "
            "standard deviation of the seeds' means",
            "MSE": "in squared units of [-1, 1], of reconstructions rounded to 8 bits, 64 px",
            "perceptual distance, identity, Fréchet distance": "computed with the network face_eval, which no method "
            "uses; they are not LPIPS and FID. The Fréchet distance depends on the number of faces, so it is omitted "
            "for methods that optimise each face",
            "visible, hidden region": "of faces with an obstacle: the part of the region of interest that the "
            "obstacle leaves visible, and the part that it hides, compared with the same face without the obstacle",
            "distance to W": "1 is the mean distance of a sample of W to the nearest other sample",
            "variation of w+": "root mean square distance of the layers' codes from their mean, relative to the "
            "radius of W; 0 for codes in W",
            "style distance": "normalised style space cosine distance (NSCD, LSAP): mean over the layers of 1 - cosine "
            "between a style vector and the mean style vector of W",
            "editing consistency": f"distance between a code and the code after an edit ({direction}, {strength:g}), "
            "synthesis, inversion and the opposite edit",
            "edits": f"strength {STRENGTH:g} towards the other end of the attribute's range, mean of five directions, "
            f"at most {self.edited_faces} faces: change of the target attribute and mean absolute change of the other "
            "attributes, in standard deviations over the faces, and cosine similarity of the identity before and "
            "after the edit; estimated by face_eval",
            "edit: Fréchet distance": "of the edited faces of all five directions to all held-out faces, by face_eval "
            "(LSAP's FID of edits)",
            "true factors": "a reference, not a method: the code of W that the training of the generator assigned to "
            "the true factors of each face. Encoders do not have the factors; where the reference is better, the "
            "generator is not the limit",
            "CPU s": "CPU seconds for a face without training; one face at a time for trained methods, else in batches",
            "p": "two-sided bootstrap with Holm's correction for all claims; the threshold is 0.05, and the smallest "
            "possible value is 2 in 10,000 times the number of claims",
            "computed with": f"torch {self.torch_version}, {self.threads} thread{'s' if self.threads > 1 else ''}",
        }

"""Losses of heads and of their auxiliary outputs."""

import pytest
import torch

from em_blocks.models.config import SetupConfig
from em_blocks.models.setup import Setup
from em_blocks.nets.losses import BCE
from em_blocks.training.objective import HeadsObjective
from em_blocks.training.run import train
from tiny_setup import tiny_config, write_setup


class Known:
    """A head that is as wrong as its output is large."""

    arrays = ("target", "mask")

    def objective(self, logits, batch, iteration):
        return 3 * (logits - batch["target"]).mean() + iteration


def test_auxiliary_outputs_count_by_their_weight():
    outputs = {"a": torch.full((1, 1, 1, 2, 2), 5.0), "a/auxiliary": torch.full((1, 1, 1, 2, 2), 2.0)}
    batch = {"a/target": torch.ones(1, 1, 1, 2, 2), "a/mask": torch.ones(1, 1, 1, 2, 2)}
    losses = HeadsObjective({"a": Known()}, auxiliary=0.5)(outputs, batch, 7)
    assert {name: float(loss) for name, loss in losses.items()} == {"a": 19.0, "a/auxiliary": 5.0}
    del outputs["a/auxiliary"]
    assert HeadsObjective({"a": Known()}, auxiliary=0.5)(outputs, batch, 7).keys() == {"a"}


def test_cross_entropy_of_repeated_voxels_is_that_of_the_mean_target():
    torch.manual_seed(0)
    coarse = torch.randn(1, 1, 1, 3, 2)
    target = (torch.rand(1, 1, 1, 12, 8) < 0.3).float()
    fine = torch.nn.functional.interpolate(coarse, scale_factor=(1, 4, 4))
    mean = torch.nn.functional.avg_pool3d(target, (1, 4, 4))
    torch.testing.assert_close(
        BCE()(fine, target, torch.ones_like(target)), BCE()(coarse, mean, torch.ones_like(mean))
    )


def test_a_training_with_auxiliary_outputs_learns_them_and_predicts_without(tmp_path):
    values = tiny_config()
    values["network"] = {
        "kind": "residual_unet", "features": [2, 2, 3], "kernels": [[[1, 3, 3]]] * 3, "auxiliary": 0.5,
    }
    values["training"] |= {"iterations": 2, "checkpoint_every": 2, "validate_every": 2}
    folder = write_setup(tmp_path / "tiny", values)
    (folder / "network.py").unlink()
    setup = Setup.from_folder(folder)
    assert "best" in train(setup, folder, "test", resume=False, go_on="-")
    torch.manual_seed(values["training"]["seed"])
    fresh, trained = setup.build(), setup.load(setup.checkpoint_path("best"))
    key = "auxiliary.affinities.weight"
    assert not torch.equal(fresh.state_dict()[key], trained.state_dict()[key])
    assert torch.isfinite(trained.state_dict()[key]).all()


@pytest.mark.parametrize("weight", [0.25, 0.5])
def test_the_weight_does_not_decide_what_a_network_predicts(weight):
    values = tiny_config()
    plain = SetupConfig.from_dict(values).network.content()
    values["network"]["auxiliary"] = weight
    assert SetupConfig.from_dict(values).network.content() == plain
    assert SetupConfig.from_dict(values).network.model_dump()["auxiliary"] == weight

"""LEWEL_B and LEWEL_M against recorded numbers, in float64: losses, embeddings, maps, gradients, buffers, training."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from golden_lewel import CASES, images, lewel_b, lewel_m, our_name, tensor
from torch import Tensor, nn

from ssl_backbones.methods import lewel_b as lewel_b_file
from ssl_backbones.methods import lewel_m as lewel_m_file
from ssl_backbones.optimizers import LARS
from ssl_backbones.recipes.settings import ScheduleConfig

LEWEL_B_CASES = ["LEWEL_B_EMAN", "LEWEL_B_BN"]
pytestmark = pytest.mark.filterwarnings("ignore:queries and keys share their batch statistics")


def exactly(value: float) -> object:
    return pytest.approx(value, rel=1e-8, abs=1e-11)


def sum_of_norms(tensors: Iterable[Tensor]) -> float:
    return sum(float(value.detach().norm()) for value in tensors)


def assert_gradients(method: nn.Module, recorded: dict[str, float]) -> None:
    gradients = {name: parameter.grad for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert set(gradients) == {our_name(name) for name in recorded}
    for name, norm in recorded.items():
        assert float(gradients[our_name(name)].norm()) == exactly(norm), name


def assert_state(method: nn.Module, recorded: dict[str, float]) -> None:
    state = method.state_dict()
    for name, norm in recorded.items():
        assert float(state[our_name(name)].double().norm()) == exactly(norm), name


@pytest.mark.parametrize("name", LEWEL_B_CASES)
class TestLewelB:
    def test_losses_gradients_and_statistics(self, name: str) -> None:
        method, out = lewel_b(name), CASES[name]["out"]
        result = method(images(0))
        assert float(result["global_loss"]) == exactly(out["global_sum"])
        assert float(result["aligned_loss"]) == exactly(out["aligned_sum"])
        assert result["loss"].item() == exactly(out["total"])
        result["loss"].backward()
        assert_gradients(method, out["grad_norm"])
        assert_state(method, out["bn_after_forward_norm"])

    def test_each_direction(self, name: str) -> None:
        method, out = lewel_b(name), CASES[name]["out"]
        view1, view2 = images(0)
        online1, online2 = lewel_b_file.embed(method, view1), lewel_b_file.embed(method, view2)
        target1, target2 = lewel_b_file.embed(method.target, view1), lewel_b_file.embed(method.target, view2)
        for (global_loss, aligned_loss), direction in (
            (method.losses(online1, target2), "12"),
            (method.losses(online2, target1), "21"),
        ):
            assert global_loss.item() == exactly(out[f"Lg_{direction}"])
            assert aligned_loss.item() == exactly(out[f"La_{direction}"])

    def test_embeddings_and_maps(self, name: str) -> None:
        method, out = lewel_b(name), CASES[name]["out"]
        view1, view2 = images(0)
        online, target = lewel_b_file.embed(method, view1), lewel_b_file.embed(method.target, view2)
        for ours, recorded in (
            (online.maps.flatten(2), "online_v1_A"),
            (online.projection, "online_v1_z"),
            (online.aligned.transpose(1, 2), "online_v1_y"),
            (target.projection, "target_v2_z"),
            (target.aligned.transpose(1, 2), "target_v2_y"),
        ):
            torch.testing.assert_close(ours, tensor(out[recorded]), rtol=1e-8, atol=1e-11)

    @pytest.mark.parametrize(("weight", "part"), [(0.0, "global_only"), (1.0, "aligned_only")])
    def test_what_each_loss_moves_in_the_head(self, name: str, weight: float, part: str) -> None:
        method = lewel_b(name, aligned_weight=weight)
        method(images(0))["loss"].backward()
        recorded = CASES[name]["out"]["neck_grad_norm_by_loss"][part]
        gradients = dict(method.named_parameters())
        for key, norm in recorded.items():
            assert float(gradients[our_name(key)].grad.norm()) == exactly(norm), key

    def test_training(self, name: str) -> None:
        """Three steps of LARS under the published schedule, the target following each."""
        case = CASES[name]
        method, config, out = lewel_b(name), case["config"], case["out"]
        excluded = {our_name(key) for key in out["lars_excluded"]}
        named = [(key, value) for key, value in method.named_parameters() if value.requires_grad]
        optimizer = LARS(
            [
                {"params": [value for key, value in named if key not in excluded]},
                {"params": [value for key, value in named if key in excluded], "adapt": False, "weight_decay": 0.0},
            ],
            lr=config["lr"],
            momentum=config["momentum"],
            weight_decay=config["weight_decay"],
        )
        schedule, steps = ScheduleConfig(warmup_epochs=config["warmup_epoch"]), len(out["train"])
        for step, recorded in enumerate(out["train"]):
            factor = schedule.factor(step, 1, config["epochs"], steps)
            for group in optimizer.param_groups:
                group["lr"] = config["lr"] * factor
            assert config["lr"] * factor == exactly(recorded["lr"])
            loss = method(images(step))["loss"]
            assert loss.item() == exactly(recorded["loss"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert method.on_step_end(step / 3) == {"target_momentum": exactly(recorded["m"])}
            online = [*method.backbone.parameters(), *method.head.parameters()]
            assert sum_of_norms(online) == exactly(recorded["online"])
            assert sum_of_norms(method.target.parameters()) == exactly(recorded["target"])
            predictors = [*method.predictor.parameters(), *method.aligned_predictor.parameters()]
            assert sum_of_norms(predictors) == exactly(recorded["predictors"])
        assert_state(method, out["final_param_norm"])

    def test_single_precision(self, name: str) -> None:
        loss = lewel_b(name).float()([view.float() for view in images(0)])["loss"]
        assert loss.item() == pytest.approx(CASES[name]["out"]["total_float32"], rel=1e-5)


class TestLewelM:
    out = CASES["LEWEL_M"]["out"]

    @pytest.mark.parametrize("negatives", ["other_images_all_maps", "other_images_same_map", "everything"])
    def test_losses(self, negatives: str) -> None:
        method = lewel_m(aligned_negatives=negatives)
        update_key_encoder(method)
        result = method(images(0))
        assert float(result["global_loss"]) == exactly(self.out["global_loss"])
        assert float(result["aligned_loss"]) == exactly(self.out["aligned"][negatives])
        assert result["loss"].item() == exactly(self.out["totals"][negatives])

    def test_gradients_embeddings_and_queue(self) -> None:
        method = lewel_m()
        update_key_encoder(method)
        view1, view2 = images(0)
        queries, keys = lewel_m_file.embed(method, view1), lewel_m_file.embed(method.key_encoder, view2)
        for ours, recorded in (
            (queries.projection, "query_z"),
            (queries.aligned.transpose(1, 2), "query_y"),
            (queries.maps.flatten(2), "query_A"),
            (keys.projection, "key_z"),
            (keys.aligned.transpose(1, 2), "key_y"),
        ):
            recorded_tensor = tensor(self.out[recorded])
            if ours.shape == recorded_tensor.shape and not torch.allclose(ours, recorded_tensor, rtol=1e-8, atol=1e-11):
                ours = nn.functional.normalize(ours, dim=1)  # some were recorded at unit length
            torch.testing.assert_close(ours, recorded_tensor, rtol=1e-8, atol=1e-11)
        method = lewel_m()
        update_key_encoder(method)
        method([view1, view2])["loss"].backward()
        assert_gradients(method, self.out["grad_norm"])
        torch.testing.assert_close(method.queue.keys, tensor(CASES["LEWEL_M"]["state_dict"]["queue"]).T)
        method.queue.commit()
        torch.testing.assert_close(method.queue.keys.T, tensor(self.out["queue_after"]), rtol=1e-8, atol=1e-11)
        assert int(method.queue.pointer) == self.out["queue_ptr_after"]

    def test_training(self) -> None:
        method, config = lewel_m(), CASES["LEWEL_M"]["config"]
        optimizer = torch.optim.SGD(
            [value for value in method.parameters() if value.requires_grad],
            lr=config["lr"],
            momentum=config["momentum"],
            weight_decay=config["weight_decay"],
        )
        update_key_encoder(method)  # the recording updates before each forward, we after each step
        for step, recorded in enumerate(self.out["train"]):
            result = method(images(step))
            assert result["loss"].item() == exactly(recorded["total"])
            assert float(result["global_loss"]) == exactly(recorded["global_loss"])
            assert float(result["aligned_loss"]) == exactly(recorded["aligned"])
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
            assert sum_of_norms(method.key_encoder.parameters()) == exactly(recorded["key"])
            online = [*method.backbone.parameters(), *method.head.parameters()]
            assert sum_of_norms(online) == exactly(recorded["query"])
            if step == 2:
                break
            assert method.on_step_end(step / 3) == {"key_momentum": 0.99}
            assert int(method.queue.pointer) == recorded["queue_ptr"]
        method.queue.commit()
        assert_state(method, self.out["final_param_norm"])


def update_key_encoder(method: nn.Module) -> None:
    method.key_encoder.update(0.99, backbone=method.backbone, head=method.head)

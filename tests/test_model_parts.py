"""Heads, moving averages, queue and batch norms, each against what it stands for."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import normalize

from ssl_backbones.distributed import gather_with_gradient
from ssl_backbones.models.aligned_head import AlignedHead, AlignedHeadConfig, aggregate
from ssl_backbones.models.backbone import feature_map, modes_kept, on_grid
from ssl_backbones.models.batch_norm import (
    BatchNormError,
    CrossReplicaBatchNorm,
    SplitBatchNorm,
    split_batch_norm,
    synchronise_batch_norm,
)
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.models.held_back import HeldBack
from ssl_backbones.models.queue import Queue, check_queue


def test_every_part_is_put_back_into_its_own_mode_even_after_an_error() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.Dropout()))
    network[0].eval()
    with pytest.raises(AttributeError), modes_kept(network):
        network.eval().get_submodule("none")
    assert [part.training for part in network.modules()] == [True, False, True, True]


class TestHeads:
    def test_all_rows_share_their_statistics(self) -> None:
        torch.manual_seed(0)
        head, rows = MLPHead(5, 7, 3).double(), torch.randn(4, 6, 5, dtype=torch.float64)
        torch.testing.assert_close(head(rows), head(rows.flatten(0, 1)).view(4, 6, 3))
        assert head(rows).shape == (4, 6, 3)

    @pytest.mark.parametrize("layers", [1, 2, 3])
    def test_the_number_of_layers(self, layers: int) -> None:
        head = MLPHead(5, 7, 3, layers)
        assert sum(isinstance(module, nn.Linear) for module in head.modules()) == layers
        assert all(module.bias is None for module in head.modules() if isinstance(module, nn.Linear))

    def test_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one layer"):
            MLPHead(5, 7, 3, 0)

    def test_it_is_initialised_over_its_outputs(self) -> None:
        torch.manual_seed(0)
        weight = MLPHead(64, 512, 64).layers[0].weight
        assert weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)


class TestAlignedHead:
    config = AlignedHeadConfig(hidden_dim=12, projection_dim=8, aligned_dim=6, groups=2)

    def test_it_is_one_convolution_over_the_mean_and_the_pixels(self) -> None:
        """As published: the head is 1x1 convolutions, run once on the mean and all pixels side by side."""
        torch.manual_seed(0)
        head = AlignedHead(16, self.config).double()
        feature_map = torch.randn(3, 16, 4, 5, dtype=torch.float64)
        columns = feature_map.flatten(2)
        columns = torch.cat([columns.mean(2, keepdim=True), columns], dim=2)

        def convolve(mlp: MLPHead, columns: torch.Tensor) -> torch.Tensor:
            first, norm, _, second = mlp.layers
            hidden = nn.functional.conv1d(columns, first.weight[:, :, None])
            hidden = nn.functional.batch_norm(hidden, None, None, norm.weight, norm.bias, training=True)
            return nn.functional.conv1d(hidden.relu(), second.weight[:, :, None])

        projected = convolve(head.projector, columns)
        maps = normalize(projected[:, :, 1:], dim=1).softmax(2)
        vectors = torch.stack(
            [
                torch.cat(
                    [(feature_map.flatten(2)[:, g * 8 : g * 8 + 8] * maps[:, [g * 4 + k]]).sum(2) for g in range(2)], 1
                )
                for k in range(4)
            ],
            dim=2,
        )
        result = head(feature_map)
        torch.testing.assert_close(result.projection, projected[:, :, 0])
        torch.testing.assert_close(result.maps.flatten(2), maps)
        torch.testing.assert_close(result.aligned.transpose(1, 2), convolve(head.semantic, vectors))

    def test_calling_the_head_twice_is_something_else(self) -> None:
        """The mean and the pixels share batch statistics when coupled, and do not when uncoupled."""
        torch.manual_seed(0)
        head = AlignedHead(16, self.config)
        feature_map = torch.randn(3, 16, 4, 5)
        assert not torch.allclose(head(feature_map).projection, head.projector(feature_map.mean((2, 3))))

    @settings(max_examples=30, deadline=None)
    @given(st.sampled_from([1, 2, 3, 6]), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
    def test_aggregation_is_the_sum_of_its_definition(self, groups: int, maps: int, channels: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randn(2, 5, groups * channels, generator=generator, dtype=torch.float64)
        weights = torch.rand(2, 5, groups * maps, generator=generator, dtype=torch.float64)
        vectors = aggregate(pixels, weights, groups)
        for b in range(2):
            for k in range(maps):
                for c in range(groups * channels):
                    expected = sum(weights[b, p, (c // channels) * maps + k] * pixels[b, p, c] for p in range(5))
                    assert vectors[b, k, c].item() == pytest.approx(float(expected))

    def test_uniform_maps_give_the_mean(self) -> None:
        pixels = torch.randn(2, 9, 8)
        mean = aggregate(pixels, torch.full((2, 9, 4), 1 / 9), groups=2)
        torch.testing.assert_close(mean, pixels.mean(1, keepdim=True).expand(2, 2, 8))


class TestMovingAverage:
    @pytest.mark.parametrize("averaged", [True, False])
    def test_it_is_the_average_of_what_it_was_shown(self, averaged: bool) -> None:
        torch.manual_seed(0)
        online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        ema = EMA(averaged, net=online)
        expected = {name: value.clone() for name, value in online.state_dict().items()}
        for momentum in (0.9, 0.5):
            online(torch.randn(8, 3))
            with torch.no_grad():
                for parameter in online.parameters():
                    parameter.add_(torch.randn_like(parameter))
            ema.update(momentum, net=online)
            for name, value in online.state_dict().items():
                is_statistic = "running" in name or "tracked" in name
                if not is_statistic or averaged:
                    mixed = momentum * expected[name] + (1 - momentum) * value
                    expected[name] = value.clone() if "tracked" in name else mixed
        for name, value in ema.net.state_dict().items():
            torch.testing.assert_close(value, expected[name])

    def test_averaged_statistics_are_used_in_training_too(self) -> None:
        ema = EMA(averaged=True, net=nn.BatchNorm1d(4)).train()
        assert not ema.net.training
        assert EMA(averaged=False, net=nn.BatchNorm1d(4)).train().net.training

    def test_it_takes_no_gradient(self) -> None:
        assert not any(parameter.requires_grad for parameter in EMA(averaged=False, net=nn.Linear(2, 2)).parameters())


@pytest.mark.parametrize("asides", [0, 1, 2])
def test_what_parts_held_back_comes_in_their_order(asides: int) -> None:
    """However often it was set aside, and once."""
    held, rows = HeldBack(), torch.arange(6)
    for part in rows.split(2):
        held.hold(part, -part)
        for _ in range(asides):
            held.set_aside()
            assert held.of_this_part == []
    assert [taken.tolist() for taken in held.take()] == [rows.tolist(), (-rows).tolist()]
    assert held.take() == ()


class TestQueue:
    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=6))
    def test_it_holds_the_last_keys(self, size: int, batches: list[int]) -> None:
        queue, offered = Queue(size, 2), []
        for number, count in enumerate(batches):
            keys = normalize(torch.randn(count, 2, generator=torch.Generator().manual_seed(number)), dim=1)
            offered.append(keys)
            before = queue.keys.clone()
            queue.offer(keys)
            assert torch.equal(queue.keys, before)
            queue.commit()
        for key in torch.cat(offered)[-size:]:
            assert (queue.keys - key).abs().sum(1).min() < 1e-5

    def test_keys_are_written_in_order_and_wrap_around(self) -> None:
        queue = Queue(5, 2)
        rows = normalize(torch.arange(1.0, 15.0).view(7, 2), dim=1)
        queue.offer(rows[:3])
        queue.commit()
        queue.offer(rows[3:5])
        queue.offer(rows[5:])
        queue.commit()
        torch.testing.assert_close(queue.keys, rows[[5, 6, 2, 3, 4]])
        assert int(queue.pointer) == 2

    def test_an_evaluation_leaves_no_keys(self) -> None:
        queue = Queue(5, 2).eval()
        before = queue.keys.clone()
        queue.offer(torch.ones(3, 2))
        queue.commit()
        assert torch.equal(queue.keys, before)
        assert queue.offered.take() == ()

    def test_keys_of_half_precision_become_unit_vectors(self) -> None:
        queue = Queue(64, 128)
        queue.offer(torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).bfloat16())
        queue.commit()
        torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(64), rtol=0, atol=1e-6)

    def test_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="queue_size=0"):
            Queue(0, 2)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 40), st.integers(2, 30), st.integers(1, 30), st.integers(1, 3))
    def test_one_that_holds_an_image_of_the_batch_is_refused(
        self, size: int, images: int, batch: int, keys_of_an_image: int
    ) -> None:
        """Epoch after epoch in the same order: a query's image is in the queue as soon as it reaches back that far."""
        seen = [image for _ in range(40) for image in range(images) for _ in range(keys_of_an_image)]
        repeats = bool(set(seen[-size:]) & set(range(batch)))
        if batch >= images or repeats:
            with pytest.raises(ValueError, match=f"queue_size is {size}, but {images} images"):
                check_queue(size, images, batch, keys_of_an_image)
        else:
            check_queue(size, images, batch, keys_of_an_image)


def test_a_network_without_feature_maps_is_refused() -> None:
    transformer = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1)
    with pytest.raises(ValueError, match=r"feature maps \(B, 192, h, w\), and a VisionTransformer gives \(2, 5, 192\)"):
        feature_map(transformer, torch.randn(2, 3, 32, 32))


class TestBatchNorms:
    def test_groups_are_normalised_apart(self) -> None:
        torch.manual_seed(0)
        norm, rows = SplitBatchNorm(3, splits=2), torch.randn(8, 3, 4, 4)
        plain = nn.BatchNorm2d(3)
        parts = [plain(part) for part in rows.chunk(2)]
        torch.testing.assert_close(norm(rows), torch.cat(parts))
        halves = [nn.BatchNorm2d(3), nn.BatchNorm2d(3)]
        for half, part in zip(halves, rows.chunk(2), strict=True):
            half(part)
        torch.testing.assert_close(norm.running_mean, (halves[0].running_mean + halves[1].running_mean) / 2)
        torch.testing.assert_close(norm.running_var, (halves[0].running_var + halves[1].running_var) / 2)

    @pytest.mark.parametrize("images", [4, 6, 7])
    def test_the_rows_of_an_image_are_normalised_in_one_group(self, images: int) -> None:
        """In a head over positions, also where the images are no multiple of the groups."""
        torch.manual_seed(0)
        head, rows = MLPHead(5, 7, 3).double(), torch.randn(images, 3, 5, dtype=torch.float64)
        whole, more = divmod(images, 4)
        expected = torch.cat([head(part) for part in rows.split([whole + (group < more) for group in range(4)])])
        torch.testing.assert_close(split_batch_norm(head, 4)(rows), expected)

    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("shape", [(12, 3), (12, 3, 5), (12, 3, 4, 5)], ids=str)
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_all_groups_at_once_are_the_groups_one_by_one(
        self, shape: tuple[int, ...], layout: torch.memory_format, affine: bool
    ) -> None:
        """As a device computes them: results, layout, gradients and running statistics."""
        torch.manual_seed(0)
        rows, toward = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
        if len(shape) == 4:
            rows = rows.contiguous(memory_format=layout)
        found = []
        for way in (SplitBatchNorm.one_by_one, SplitBatchNorm.at_once):
            norm, shown = SplitBatchNorm(3, splits=4, affine=affine).double(), rows.clone().requires_grad_()
            if affine:
                nn.init.uniform_(norm.weight, generator=torch.manual_seed(1))
                nn.init.uniform_(norm.bias, generator=torch.manual_seed(2))
            means, variances = torch.zeros(4, 3, dtype=torch.float64), torch.ones(4, 3, dtype=torch.float64)
            result = way(norm, shown, means, variances)
            (result * toward).sum().backward()
            assert result.stride() == rows.stride()
            found.append([result, shown.grad, means, variances, *(weights.grad for weights in norm.parameters())])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("rows", [torch.randn(8, 3), torch.randn(8, 3, 4, 4)], ids=["1d", "2d"])
    def test_an_exchange_keeps_what_has_no_scale(self, rows: torch.Tensor) -> None:
        plain = nn.BatchNorm1d(3, affine=False) if rows.ndim == 2 else nn.BatchNorm2d(3, affine=False)
        for exchange in (synchronise_batch_norm, lambda net: split_batch_norm(net, 1)):
            exchanged = exchange(copy.deepcopy(plain))
            assert list(exchanged.parameters()) == []
            torch.testing.assert_close(exchanged(rows), copy.deepcopy(plain)(rows))

    @pytest.mark.parametrize("rows", [torch.randn(8, 3), torch.randn(8, 3, 4, 4)], ids=["1d", "2d"])
    def test_alone_all_processes_are_this_one(self, rows: torch.Tensor) -> None:
        plain = nn.BatchNorm1d(3) if rows.ndim == 2 else nn.BatchNorm2d(3)
        synced = CrossReplicaBatchNorm(3)
        torch.testing.assert_close(synced(rows), plain(rows))
        torch.testing.assert_close(synced.state_dict(), plain.state_dict())
        torch.testing.assert_close(synced.eval()(rows), plain.eval()(rows))

    @pytest.mark.parametrize("exchange", [synchronise_batch_norm, lambda net: split_batch_norm(net, 2)])
    def test_an_average_over_all_steps_is_refused_in_one_sentence(self, exchange: object) -> None:
        with pytest.raises(BatchNormError, match=r"momentum=None .* give it a momentum"):
            exchange(nn.Sequential(nn.BatchNorm2d(4, momentum=None)))  # type: ignore[operator]

    @pytest.mark.parametrize("exchange", [synchronise_batch_norm, lambda net: split_batch_norm(net, 2)])
    def test_an_exchange_keeps_names_and_values(self, exchange: object) -> None:
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, eps=1e-3)))
        net[1][0].weight.data.fill_(3.0)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        after = exchange(net)  # type: ignore[operator]
        torch.testing.assert_close(after.state_dict(), before)
        assert after[1][0].eps == 1e-3
        assert not any(type(module) is nn.BatchNorm2d for module in after.modules())


@pytest.mark.parametrize("side", [0, 4, 7, 2, 3])
def test_maps_are_pooled_to_a_grid_and_never_blown_up_to_one(side: int) -> None:
    """Others are left alone, as the gradient of pooling has no deterministic form on a GPU."""
    maps = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    found = on_grid(maps, side)
    assert (found is maps) == (side in (0, 4, 7))
    assert found.shape == (2, 5, *[min(side or 4, 4)] * 2)
    if side != 3:  # whose windows overlap
        torch.testing.assert_close(found.mean((2, 3)), maps.mean((2, 3)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_gradients_of_several_processes_are_summed_in_single_precision_at_least(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_backbones.distributed.world_size", lambda: 2)
    monkeypatch.setattr("ssl_backbones.distributed.AllGather.apply", lambda rows: rows.repeat(2, 1))
    rows = torch.ones(3, 2, dtype=dtype, requires_grad=True)
    everyone = gather_with_gradient(rows)
    assert everyone.dtype == torch.promote_types(dtype, torch.float32)
    everyone.sum().backward()
    assert rows.grad is not None
    assert rows.grad.dtype == dtype

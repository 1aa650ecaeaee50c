"""vista2d keeps to the contract, its network is the published one, and a small one learns."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from ignite.engine import Events
from monai.inferers import SlidingWindowInfererAdapt
from monai.networks.nets.cell_sam_wrapper import CellSamWrapper
from monai.transforms import Compose, ScaleIntensityd, ScaleIntensityRangePercentilesd
from torch.utils._python_dispatch import TorchDispatchMode

from cellbundle.engine.network import load_weights
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.errors import CheckpointError, ConfigError, TrainingError
from cellbundle.predictor import Predictor
from cellbundle.synthetic import generate, write_dataset
from cellbundle.transforms import NormaliseIntensityd

sys.path.insert(0, str(Path(__file__).parent))
from contract import REPOSITORY, BundleContract, flags, run

BUNDLE = REPOSITORY / "bundles" / "vista2d"
TINY = {
    "network_resize_roi": [64, 64],
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "global_attn_indexes": [1],
    "window_size": 3,
}
SMALL = {f"network_def#{key}": value for key, value in TINY.items()} | {
    "network_def#sam_checkpoint": "$None",
    "optimizer_name": "adamw",
    "crops_per_epoch": 8,
    "batch_size": 4,
    "roi_size": [64, 64],
}
N_PARAMETERS = 89_970_051  # of MONAI's CellSamWrapper, and of the weights that NVIDIA published


def network_module():
    """The bundle's file as a module; the name ``scripts`` belongs to whichever bundle was imported first."""
    spec = importlib.util.spec_from_file_location("vista2d_network", BUNDLE / "scripts" / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


module = network_module()


def randomise(network, seed=0):
    """Values for what starts at zero: without them, positions would not matter to any comparison."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.eval()


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    return randomise(module.VistaNetwork(**{**TINY, **options}), seed)


def picture(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class TestVista2D(BundleContract):
    name = "vista2d"
    workflow = "VistaCell"
    small = SMALL
    n_outputs = 3

    # training, with MONAI's engine and the bundle's own configuration

    def trained(self, data: Path, folder: Path, **options) -> CellWorkflow:
        options = {
            "final_test": False,
            "val_interval": 1,
            "tile_overlap": 0.0,
            "train#trainer#max_epochs": 1,
            **options,
        }
        workflow = self.make(data, folder, **options)
        workflow.run()
        return workflow

    def test_fine_tuning_follows_the_schedule_and_five_epochs_are_five(self, data: Path, tmp_path: Path):
        torch.save({"state_dict": self.network().state_dict(), "epoch": 199}, tmp_path / "published.pt")
        options = {"pretrained_ckpt_path": str(tmp_path / "published.pt"), "learning_rate": 0.001, "val_interval": 9}
        workflow = self.trained(data, tmp_path, optimizer_name="sgd", **options, **{"train#trainer#max_epochs": 5})
        assert workflow.trainer.state.epoch == 5
        with (tmp_path / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
        # three epochs of warm-up from a tenth on, then half a cosine over the other two
        assert [float(row["learning_rate"]) for row in rows] == pytest.approx([1e-4, 4e-4, 7e-4, 1e-3, 5e-4])

    def test_resuming_equals_never_stopping(self, data: Path, tmp_path: Path):
        two = {"train#trainer#max_epochs": 2}
        whole = self.trained(data, tmp_path / "whole", num_workers=2, **two).content("network").state_dict()
        workflow = self.make(data, tmp_path / "parts", final_test=False, **two)
        workflow.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.terminate())
        workflow.run()
        resumed = self.trained(data, tmp_path / "parts", resume=True, **two)
        assert resumed.trainer.state.epoch == 2
        parts = resumed.content("network").state_dict()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)

    @pytest.mark.parametrize(
        ("options", "kind", "expected"),
        [
            ({"optimizer_name": "sgd"}, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-5}),
            ({"optimizer_name": "adamw"}, torch.optim.AdamW, {"lr": 1e-4, "weight_decay": 1e-5}),
            ({"optimizer_name": "adamw", "learning_rate": 0.002}, torch.optim.AdamW, {"lr": 0.002}),
            ({"optimizer_name": "sgd", "train#optimizer#momentum": 0.5}, torch.optim.SGD, {"momentum": 0.5}),
        ],
    )
    def test_optimisers(self, data: Path, tmp_path: Path, options, kind, expected):
        optimizer = self.make(data, tmp_path, **options).content("train#optimizer")
        assert type(optimizer) is kind
        assert {key: optimizer.defaults[key] for key in expected} == pytest.approx(expected)

    def test_a_training_that_learns_nothing_stops(self, data: Path, tmp_path: Path):
        slow = {"learning_rate": 0.0, "train#trainer#max_epochs": 3, "train#handlers#5#epochs": 2}
        with pytest.raises(TrainingError, match=r"after 2 epochs the best ap50 is 0\.0000, expected at least 0\.01"):
            self.trained(data, tmp_path, **slow)
        self.trained(data, tmp_path, stop_on_lowacc=False, **slow)

    def test_several_lists_count_by_their_weight(self, data: Path, tmp_path: Path):
        spec = {"datalist": str(data), "basedir": str(data.parent)}
        lists = tmp_path / "group1.yaml"
        lists.write_text(yaml.safe_dump([spec, {**spec, "weight": 3.0}]))
        several = self.make(data, tmp_path, data_list_files=str(lists), crops_per_epoch=4000)
        drawn = np.bincount([key[2] for key in several.content("train#sampler")], minlength=12)
        assert drawn[6:].sum() / drawn[:6].sum() == pytest.approx(3, rel=0.15)
        one = self.make(data, tmp_path, crops_per_epoch="$None").content("train#sampler")
        assert sorted(key[2] for key in one) == list(range(6)), "each image once"
        self.trained(data, tmp_path, data_list_files=str(lists))

    def test_training_crops(self, tmp_path: Path):
        """Smaller images are filled up; ids that float32 cannot tell apart stay apart."""
        labels = np.zeros((40, 50), np.uint32)
        labels[5:35, 5:25], labels[5:35, 25:45] = 2**24, 2**24 + 1
        tifffile.imwrite(tmp_path / "label.tif", labels)
        tifffile.imwrite(tmp_path / "image.tif", np.arange(2000, dtype=np.uint16).reshape(40, 50))
        entries = [{"image": "image.tif", "label": "label.tif", "fold": 1}]
        (tmp_path / "list.json").write_text(json.dumps({"training": entries}))

        def crop(prob: float) -> dict:
            geometry = {f"train#preprocessing#{i}#prob": prob for i in (5, 6)}
            workflow = self.make(tmp_path / "list.json", tmp_path, roi_size=[96, 96], **geometry)
            return workflow.content("train#dataset")[0, 0, 0]

        item, moved = crop(0.0), crop(1.0)
        for key in ("image", "label"):
            assert {(type(i[key]), i[key].shape, i[key].dtype) for i in (item, moved)} == {
                (torch.Tensor, (3, 96, 96), torch.float32)
            }
        cell, dy, dx = item["label"]
        assert cell.sum() == 1200
        assert dy.square().add(dx.square())[cell > 0].median() == pytest.approx(1, abs=1e-5)
        left, right = dx[cell > 0].reshape(30, 40)[:, [15, 24]].mean(0)
        assert left < 0 < right, "each to its own centre"
        assert not torch.equal(item["label"], moved["label"])

    def test_sam_file_and_weights_in_the_wrong_place(self, data: Path, tmp_path: Path):
        """A SAM file is read only where training starts from scratch."""
        sam, vista = sam_file(tiny(), tmp_path / "sam.pth"), vista_file(tiny(), tmp_path / "vista.pt")
        config = yaml.safe_load((self.root / "configs" / "hyper_parameters.yaml").read_text())
        reads_sam = {"network_def#sam_checkpoint": config["network_def"]["sam_checkpoint"]}
        with pytest.raises(CheckpointError, match="this is a SAM file"):
            self.make(data, tmp_path, mode="infer", pretrained_ckpt_path=str(sam)).run()
        with pytest.raises(CheckpointError, match="this is a whole VISTA2D network"):
            self.make(data, tmp_path, sam_checkpoint=str(vista), **reads_sam).run()
        options = {"sam_checkpoint": str(tmp_path / "none.pth"), **reads_sam}
        with pytest.raises(CheckpointError, match=r"none\.pth does not exist"):
            self.make(data, tmp_path, **options).run()
        self.make(data, tmp_path, pretrained_ckpt_path=str(vista), **options).content("network")
        self.make(data, tmp_path, mode="eval", pretrained_ckpt_path=str(vista), **options).content("network")

    # what only eval and infer need

    def test_windows_are_those_of_the_published_bundle(self, data: Path, tmp_path: Path):
        """At sizes that its windows fit, ours are MONAI's; smaller images are filled up with copies of their border."""
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        inferer = self.make(data, tmp_path, mode="infer", roi_size=[256, 256], tile_overlap=0.625).content("inferer")
        theirs = SlidingWindowInfererAdapt((256, 256), 1, 0.625, mode="gaussian", padding_mode="replicate")
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 3, 5, padding=2)
        seen = set()
        network.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].shape))
        with torch.no_grad():
            for size in [(256, 352), (448, 256), (100, 300), (30, 40)]:
                image = picture(1, 3, *size)
                ours = inferer(image, network)
                torch.testing.assert_close(ours, theirs(image, network), atol=1e-5, rtol=1e-5)
        assert {shape[2:] for shape in seen} == {(256, 256)}
        assert {shape[0] for shape in seen} == {1, 2, 3}, "batches"

    def test_predict_command_uses_the_windows_of_the_bundle(self, tmp_path: Path):
        bundle = tmp_path / "vista2d_tiny"
        shutil.copytree(BUNDLE, bundle, ignore=shutil.ignore_patterns("models", "eval", "__pycache__"))
        config = json.loads((bundle / "configs" / "inference.json").read_text())
        config["network_def"].update(TINY)
        (bundle / "configs" / "inference.json").write_text(json.dumps(config))
        (bundle / "models").mkdir()
        torch.save(self.network().state_dict(), bundle / "models" / "model.pt")
        predictor = Predictor(bundle, device="cpu", rescale=1.6)
        assert predictor.tile == 256
        assert predictor.inferer.network_tile() == [256, 256]
        image = generate("he", (70, 90), 9, diameter=18, seed=1)[0].transpose(2, 0, 1).astype(np.float32)
        assert predictor.segment(image)[0].shape == (70, 90)
        with pytest.raises(ConfigError, match="has windows of one size; leave tile out"):
            Predictor(bundle, device="cpu", tile=512)
        with pytest.raises(ConfigError, match="give rescale instead"):
            Predictor(bundle, device="cpu", diameter=20)

    @pytest.mark.slow
    def test_commands(self, data: Path, tmp_path: Path):
        """What the bundle's page shows, in its folder, with the small network's file as the second one."""
        files = "['configs/hyper_parameters.yaml','configs/network_small.yaml']"
        where = ["--datalist", str(data), "--basedir", str(data.parent), "--output_dir", str(tmp_path / "eval")]
        common = [*where, "--device_name", "cpu", "--tile_overlap", "0.0", "--config_file", files]
        size = flags({key: value for key, value in self.small.items() if key.startswith("network_def")})
        start = ["-m", "monai.bundle", "run_workflow", "scripts.workflow.VistaCell"]

        def check(*options: str) -> None:
            done = run([sys.executable, *options, *common, *size], self.root)
            assert done.returncode == 0, done.stderr[-3000:]

        first, tuned = tmp_path / "first", tmp_path / "tuned"
        uri = f"sqlite:///{tmp_path / 'runs.db'}" if importlib.util.find_spec("mlflow") else "$None"
        track = ["--mlflow_tracking_uri", uri, "--mlflow_run_name", "quick"]
        check(*start, "--ckpt_path", str(first), "--quick", "True", "--train#trainer#max_epochs", "3", *track)
        assert torch.load(first / "latest.pt", weights_only=True)["epoch"] == 3
        tune = ["--pretrained_ckpt_path", str(first / "model.pt"), "--learning_rate", "0.0005"]
        check("scripts/workflow.py", "--ckpt_path", str(tuned), "--quick", "True", *tune)
        assert (tuned / "model.pt").is_file()
        check(*start, "--ckpt_path", str(tuned), "--mode", "infer", "--postprocessing", "[]")
        assert not list((tmp_path / "eval").glob("*_labels.tif"))
        assert uri == "$None" or (tmp_path / "runs.db").stat().st_size > 0

    @pytest.mark.slow
    def test_the_small_network_learns_four_crops(self, tmp_path: Path):
        self.overfit(tmp_path, epochs=10, expected=0.5)

    @pytest.mark.very_slow
    def test_the_small_network_learns_four_crops_by_heart(self, tmp_path: Path):
        self.overfit(tmp_path, epochs=24, expected=0.9)

    def overfit(self, folder: Path, epochs: int, expected: float) -> None:
        """Train configs/network_small.yaml on four crops without augmentation, and score it on them."""
        data = write_dataset(folder / "data", n_training=4, n_testing=0, size=(256, 256), seed=0)
        files = [str(self.root / "configs" / f"{name}.yaml") for name in ("hyper_parameters", "network_small")]
        everything = "$find_entries(@data_list_files, 'training', 99)"  # no fold is left out
        still = {f"train#preprocessing#{i}#prob": 0.0 for i in range(5, 12)}
        workflow = CellWorkflow(
            config_file=files,
            logging_file=False,
            datalist=str(data),
            basedir=str(data.parent),
            ckpt_path=str(folder),
            device_name="cpu",
            num_workers=0,
            batch_size=4,
            crops_per_epoch=16,
            val_interval=epochs,
            final_test=False,
            **{"train#dataset#data": everything, "validate#dataset#data": everything},
            **{"train#trainer#max_epochs": epochs},
            **still,
        )
        workflow.initialize()
        workflow.run()
        assert workflow.content("validate#evaluator").state.best_metric >= expected


# The network


def test_state_dict_is_that_of_the_published_network():
    with torch.device("meta"):
        ours, theirs = module.VistaNetwork(), CellSamWrapper(checkpoint=None)
    assert isinstance(ours, CellSamWrapper)
    expected = {key: (value.shape, value.dtype) for key, value in theirs.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in ours.state_dict().items()} == expected
    assert len(expected) == 190
    assert sum(p.numel() for p in ours.parameters()) == N_PARAMETERS


@pytest.mark.slow
def test_published_checkpoint_gives_the_published_output(tmp_path):
    torch.manual_seed(0)
    theirs = randomise(CellSamWrapper(checkpoint=None))
    torch.save({"state_dict": theirs.state_dict(), "epoch": 199, "best_metric": 0.7}, tmp_path / "model.pt")
    ours = module.VistaNetwork().eval()
    load_weights(ours, tmp_path / "model.pt")
    image = picture(1, 3, 256, 256)
    with torch.inference_mode():
        expected = theirs(image)
        assert (ours(image) - expected).abs().max() <= 1e-5
    assert expected.std() > 0.01


SIZES = [
    {},
    {"network_resize_roi": [80, 80], "window_size": 4},  # a grid of 5, windows of 4: filled up to 8
    {"network_resize_roi": [160, 160], "window_size": 14, "global_attn_indexes": []},  # windows larger than the grid
    {"network_resize_roi": [96, 96], "window_size": 2, "global_attn_indexes": [0, 1], "num_heads": 4},
    {"embed_dim": 26, "num_heads": 2},  # channels that are no multiple of 8
]


@pytest.mark.parametrize("block", [module.BLOCK, 500, 1])
@pytest.mark.parametrize("size", SIZES)
def test_attention_in_blocks_is_plain_attention(size, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    ours, theirs = tiny(**size), tiny(**size, fused_attention=False)
    image = picture(2, 3, 70, 50)
    with torch.no_grad():
        expected = theirs(image)
        torch.testing.assert_close(ours(image), expected, atol=1e-5, rtol=0)
        assert (tiny(**size, seed=1)(image) - expected).abs().max() > 0.01, "positions matter"


@pytest.mark.parametrize("size", SIZES)
def test_fused_attention_and_its_gradients_are_those_of_plain_attention(size):
    ours, theirs = tiny(**size), tiny(**size, fused_attention=False)
    outputs = [network(picture(2, 3, 70, 50)) for network in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)
    for output in outputs:
        output.square().mean().backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("grad", [False, True])
def test_bfloat16(grad):
    network, image = tiny(), picture(1, 3, 64, 64)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(image).float()
    with torch.no_grad():
        expected = network(image)
    assert torch.isfinite(result).all()
    assert (result - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_exporters_see_one_fused_call_a_block():
    network, image = tiny(), picture(1, 3, 64, 64)
    with torch.no_grad():
        traced = torch.jit.trace(network, image)
        torch.testing.assert_close(traced(image), network(image), atol=1e-5, rtol=0)
    assert str(traced.inlined_graph).count("aten::scaled_dot_product_attention") == TINY["depth"]


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation returns."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.n = max(self.n, value.numel())
        return result


@pytest.mark.parametrize("grad", [False, True])
def test_no_tensor_holds_all_pairs_of_tokens(grad, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 1 << 14)
    pairs, sizes = 2 * 24**4, []  # heads x tokens x tokens
    for fused in (True, False):
        attention = tiny(fused_attention=fused, network_resize_roi=[384, 384]).model.image_encoder.blocks[1].attn
        with torch.set_grad_enabled(grad), Largest() as largest:
            attention(picture(1, 24, 24, 16))
        sizes.append(largest.n)
    assert sizes[0] < pairs / 8
    assert sizes[1] == pairs


MEMORY = """
import importlib.util, sys
from pathlib import Path
import torch
spec = importlib.util.spec_from_file_location("network", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
network = module.VistaNetwork(depth=3, global_attn_indexes=(2,)).eval()
with torch.inference_mode():
    network(torch.rand(4, 3, 256, 256))
status = Path("/proc/self/status").read_text()  # ru_maxrss starts at the size of the process that started this one
print(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
"""


@pytest.mark.very_slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_peak_memory_of_four_windows_is_below_half_of_plain_attention():
    """Plain attention holds logits and weights, 12 heads of 4096 x 4096 in float32 each, for four windows at once."""
    plain = 2 * 4 * 12 * 4096**2 * 4
    command = [sys.executable, "-c", MEMORY, str(BUNDLE / "scripts" / "network.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) * 1024 < plain / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network_resize_roi": [64, 80]}, r"network_resize_roi is \[64, 80\], expected a square of a multiple of 16"),
        ({"network_resize_roi": [40, 40]}, "expected a square"),
        ({"num_heads": 3}, "embed_dim 16 must be a multiple of num_heads 3"),
        ({"global_attn_indexes": [2]}, r"global_attn_indexes \[2\] must be below depth 2"),
    ],
)
def test_sizes_that_do_not_fit_together(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


# Files of weights


def sam_file(network, path):
    """A file with the keys of SAM: the encoder, and parts that this network does not have."""
    encoder = {f"image_encoder.{k}": v for k, v in network.model.image_encoder.state_dict().items()}
    others = {
        "prompt_encoder.not_a_point_embed.weight": torch.zeros(1, 256),
        "mask_decoder.iou_token.weight": torch.ones(1),
    }
    torch.save(encoder | others, path)
    return path


def vista_file(network, path, rename=lambda key: key):
    torch.save({"state_dict": {rename(k): v for k, v in network.state_dict().items()}, "epoch": 3}, path)
    return path


def test_the_encoder_starts_from_a_sam_file(tmp_path):
    source = tiny(seed=5)
    network = module.VistaNetwork(**TINY, sam_checkpoint=str(sam_file(source, tmp_path / "sam.pth")))
    for key, value in network.model.image_encoder.state_dict().items():
        assert torch.equal(value, source.model.image_encoder.state_dict()[key])
    assert not torch.equal(network.model.mask_decoder[2].weight, source.model.mask_decoder[2].weight)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_are_accepted(prefix, tmp_path):
    source, target = tiny(seed=1), tiny(seed=2)
    load_weights(target, vista_file(source, tmp_path / "model.pt", lambda key: prefix + key))
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


NOT_WEIGHTS = {
    "sam": [
        "missing (model.image_encoder.pos_embed",
        "not expected (image_encoder.pos_embed",
        "this is a SAM file, for training from scratch: give it as --sam_checkpoint",
        "model.pt of VISTA2D was probably meant",
    ],
    "other size": [
        "(1, 6, 6, 32) in the file, (1, 4, 4, 16) here",
        "has 2 blocks of 32 channels on a grid of 6 x 6, this one 2 blocks of 16 channels on a grid of 4 x 4",
        "configs/network_small.yaml",
    ],
    "incomplete": ["missing (", "what is there fits, so the file may be incomplete; get model.pt of VISTA2D again"],
    "unrelated": ["1 not expected (conv.weight)", "neither SAM nor VISTA2D; model.pt of VISTA2D was probably meant"],
    "truncated": ["not a readable checkpoint", "it may be truncated"],
}
NOT_SAM = {
    "vista": [
        "missing (pos_embed",
        "not expected (model.image_encoder.pos_embed",
        "this is a whole VISTA2D network: give it as --pretrained_ckpt_path",
        "sam_vit_b_01ec64.pth was probably meant",
    ],
    "other size of sam": [
        "pos_embed: (1, 6, 6, 32) in the file, (1, 4, 4, 16) here",
        "has 2 blocks of 32 channels",
        "sam_vit_b_01ec64.pth was probably meant",
    ],
    "unrelated": ["neither SAM nor VISTA2D; sam_vit_b_01ec64.pth was probably meant"],
    "truncated": ["not a readable checkpoint", "it may be truncated"],
}


def wrong_file(kind, path):
    """A file of one of the kinds above."""
    other = {"embed_dim": 32, "network_resize_roi": [96, 96]}
    if "sam" in kind:
        return sam_file(tiny(**(other if "size" in kind else {})), path)
    if kind == "incomplete":
        torch.save({"state_dict": dict(list(tiny().state_dict().items())[:9])}, path)
    elif kind == "unrelated":
        torch.save({"conv.weight": torch.zeros(1)}, path)
    else:
        vista_file(tiny(**(other if "size" in kind else {})), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    return path


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_another_file_than_the_weights(kind, tmp_path):
    with pytest.raises(CheckpointError) as error:
        load_weights(tiny(), wrong_file(kind, tmp_path / "some.pt"))
    assert all(message in str(error.value) for message in ["some.pt", *NOT_WEIGHTS[kind]]), error.value


@pytest.mark.parametrize("kind", NOT_SAM)
def test_another_file_than_sam(kind, tmp_path):
    path = wrong_file(kind, tmp_path / "some.pth")
    with pytest.raises(CheckpointError) as error:
        module.VistaNetwork(**TINY, sam_checkpoint=str(path))
    assert all(message in str(error.value) for message in ["some.pth", *NOT_SAM[kind]]), error.value


# The input


@pytest.mark.filterwarnings("ignore:Divide by zero")
@pytest.mark.parametrize("kind", ["ramp", "noise", "sparse", "constant"])
def test_intensities_are_those_that_the_published_weights_saw(kind):
    """``ScaleIntensityd`` twice changes nothing, so once is enough to compare with."""
    noise = picture(3, 60, 70).square() * 3000 - 100
    image = {
        "ramp": torch.arange(3 * 60 * 70.0).reshape(3, 60, 70),
        "noise": noise,
        "sparse": torch.where(noise > 2890, noise, torch.tensor(-100.0)),  # less than 1 % of the pixels
        "constant": torch.full((3, 60, 70), 7.0),
    }[kind]
    config = json.loads((BUNDLE / "configs" / "inference.json").read_text())["normaliser"]
    ours = NormaliseIntensityd(lower=config["lower"], upper=config["upper"])({"image": image})["image"]
    published = Compose(
        [
            ScaleIntensityd("image", minv=0, maxv=1, channel_wise=True),
            ScaleIntensityRangePercentilesd("image", 1, 99, 0, 1, clip=True, channel_wise=True),
        ]
    )
    torch.testing.assert_close(ours, torch.as_tensor(published({"image": image})["image"]), atol=2e-6, rtol=0)
    assert ours.max() == (kind != "constant")

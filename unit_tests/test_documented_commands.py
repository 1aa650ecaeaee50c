"""The commands of the README and of the pages: in order, none trains into the folder of another one's weights."""

import re
import shlex

import pytest
from unit_tests.packages.packaging import BUNDLES, ROOT

from cellbundle.bundles import make_importable
from cellbundle.engine.overrides import check_overrides

PAGES = {
    "README.md": "cell_unet",
    "docs/your_data.md": "cell_unet",
    "docs/tracking.md": "cell_unet",
    "docs/databricks.md": "cell_unet",
} | {f"bundles/{name}/docs/README.md": name for name in BUNDLES}
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.M | re.S)
VARIABLE = re.compile(r"^([A-Z]+)=(.*)$")
BUNDLE_FOLDER = ROOT / "bundles"
SHIPPED = "models/model.pt"


def commands(text):
    """Command lines of the shell blocks of a page as lists of words, variables replaced."""
    variables = {}
    for block in BLOCK.findall(text):
        for commented in block.replace("\\\n", " ").splitlines():
            line = commented.split("  #")[0].split(" # ")[0].strip()
            if match := VARIABLE.match(line):
                variables[match[1]] = expanded(match[2].strip("'\""), variables)
            elif line:
                yield expanded(line, variables).replace('"$PWD/', '"')


def expanded(text, variables):
    return re.sub(r"\$([A-Z]+)\b", lambda match: variables.get(match[1], match[0]), text)


def options(line):
    """Options of a command of a bundle's workflow, None for other commands."""
    if "run_workflow" not in line and "scripts/workflow.py" not in line:
        return None
    words = shlex.split(line, posix=True)
    return {
        word[2:]: following for word, following in zip(words, [*words[1:], ""], strict=True) if word.startswith("--")
    }


WRITTEN = ("ckpt_path", "output_dir", "output", "output-dir")


@pytest.mark.parametrize("page", [*PAGES, "docs/first_steps.md", "docs/monai_label.md", "docs/packages.md"])
def test_outputs_leave_the_checkout_clean(page):
    """They go to folders elsewhere, or to ``results``, which git ignores."""
    for line in commands((ROOT / page).read_text(encoding="utf-8")):
        for name, value in re.findall(r"--([a-z_-]+)[ =](\S+)", line):
            assert name not in WRITTEN or value == "results" or value.startswith(("/", "s3://")) or value.isupper(), (
                line
            )


def workflow_commands(page):
    """Options of the commands of a page that run its own bundle."""
    (workflow,) = re.findall(
        r"^class (\w+)", (BUNDLE_FOLDER / PAGES[page] / "scripts" / "workflow.py").read_text(), re.M
    )
    lines = commands((ROOT / page).read_text(encoding="utf-8"))
    found = [options(line) for line in lines if workflow in line or "scripts/workflow.py" in line]
    return [command for command in found if command is not None]


@pytest.mark.parametrize("page", PAGES)
def test_trainings_have_folders_of_their_own(page):
    found = workflow_commands(page)
    assert found, "the page has commands of the bundle"
    written = set()
    for command in found:
        if command.get("mode", "train") != "train":
            continue
        folder = command.get("ckpt_path")
        if folder is None:  # a new one
            continue
        continued = command.get("resume") == "True" or (command.get("phase") == "2" and folder in written)
        assert continued or folder not in written, f"{folder} has weights already: {command}"
        assert "pretrained_ckpt_name" not in command, "a name in ckpt_path, which is new"
        written.add(folder)


@pytest.mark.parametrize("page", PAGES)
def test_options_exist(page):
    from cellbundle.engine.configs import load_config

    root = ROOT / "bundles" / PAGES[page]
    make_importable(root)
    config = load_config(root / "configs" / "hyper_parameters.yaml")
    ours = {"config_file", "mode", "standalone", "nproc_per_node", "nnodes"}
    for command in workflow_commands(page):
        check_overrides(config, [name for name in command if name.split("=")[0] not in ours])


def test_shipped_weights_are_named_where_they_are():
    assert (ROOT / "bundles" / "cell_unet" / SHIPPED).is_file()
    tuned = [command for command in workflow_commands("README.md") if command.get("pretrained_ckpt_path")]
    assert [command["pretrained_ckpt_path"] for command in tuned] == [SHIPPED]

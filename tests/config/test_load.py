"""Files and overrides: everything right is kept, everything wrong is listed at once."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest

from vitkit.config import (
    RunConfig,
    describe_keys,
    dump_yaml,
    given_keys,
    load_config,
    override_words,
    split_arguments,
    suggest_key,
    to_plain,
)
from vitkit.config.load import SYNONYMS
from vitkit.data.config import DataConfig
from vitkit.data.kinds import DATA_CONFIGS
from vitkit.errors import ConfigError
from vitkit.models.presets import CUSTOM
from vitkit.training.task_config import TASKS, TaskConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def faults(*overrides: str, files: tuple[Path, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_config(files, overrides)
    return error.value.faults


def test_every_fault_is_listed_at_once(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("model:\n  name: vit_mini_patch4_32\n  dpeth: 3\ntrainer:\n  max_epochs: ten\n")
    found = faults(
        "data.batchsize=3",
        "optimzer.lr=1",
        "schedule.name=cosin",
        "data.val_fraction=1.5",
        "seed=3",
        files=(file,),
    )
    assert len(found) == 7
    text = "\n".join(found)
    assert "model.dpeth: unknown key; did you mean model.depth?" in text
    assert "trainer.max_epochs: given 'ten', allowed: a whole number" in text
    assert "x.yaml, line 5" in text
    assert "data.batchsize: unknown key; did you mean data.batch_size?" in text
    assert "optimzer: unknown section; did you mean optimizer?" in text
    assert "schedule.name: given 'cosin'" in text
    assert "did you mean cosine" in text
    assert "data.val_fraction: given 1.5, allowed: < 1" in text
    assert "'seed=3': an override names a section and a key" in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.name=vit_mini_patch4_23", "did you mean vit_mini_patch4_32"),
        ("model.lr=0.1", "unknown key; did you mean optimizer.lr?"),
        ("trainer.seed=1", "unknown key; did you mean eval.seed or run.seed?"),
        ("data.augment.flop=true", "did you mean data.augment.flip?"),
        ("data.augment=3", "allowed: a group of keys"),
        ("ema.enabled=1", "given 1, allowed: true or false"),
        ("ema.enabled=off", "given 'off', allowed: true or false"),
        ("trainer.max_epochs=2.5", "allowed: a whole number"),
        ("trainer.devices=0", "given 0"),
        ("optimizer.lr=.nan", "finite"),
        ("data=3", "an override names a section"),
        ("data.name=[1", "not valid YAML"),
        ("data.root=trip #3", "what is behind # in trip #3 is a comment; quote it"),
        ("max_epochs=3", "; did you mean trainer.max_epochs=3?"),
        ("epochs=3", "; did you mean trainer.max_epochs=3?"),
        ("batch-size=3", "; did you mean data.batch_size=3?"),
        ("xyzzy=3", "as in data.name=cifar10"),
        ("model.name=vit_tinny", "did you mean vit_tiny_patch4_32 or vit_tiny_patch16_224"),
        ("task.name=clasification", "task.name: unknown task 'clasification'; did you mean class"),
        ("task.name=xyzzy", "tasks: classification"),
        ("trainer.devices=none", "given 'none', allowed: a whole number or 'auto'"),
    ],
)
def test_one_fault_one_line(override: str, expected: str) -> None:
    found = faults(override)
    assert any(expected in line for line in found), found
    assert all("\n" not in line for line in found)


def test_every_fault_of_a_file_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("model: {name: xyzzy}\ndta:\n  a: 1\ndata:\n  x: 1\nschedule: 3\n")
    lines = [line.rpartition(", line ")[2] for line in faults(files=(file,))]
    assert lines == ["1)", "2)", "5)", "6)"]
    file.write_text("schedule:\n  min_lr: 0.5\n")
    assert faults(files=(file,))[0].endswith(f"({file}, line 2)")
    assert "line" not in faults("schedule.min_lr=0.6", files=(file,))[0]


def test_a_setting_that_takes_the_place_of_a_group_leaves_its_lines_behind(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "model:\n  conv_stem:\n    - dim: 8\n      stride: 2\n"
        "task:\n  finetune:\n    rank: 4\n    alpha: none\n"
    )
    words = ("model.conv_stem=[{dim: none, stride: 1}]", "task.finetune={rank: none}")
    stem, rank, alpha = faults(*words, files=(file,))
    assert stem.startswith("model.conv_stem.dim: given 'none'") and "line" not in stem
    assert rank.startswith("task.finetune.rank: given 'none'") and "line" not in rank
    assert alpha.startswith("task.finetune.alpha:") and alpha.endswith(f"({file}, line 8)")


def test_blanks_around_a_key_are_none_of_it(tmp_path: Path) -> None:
    words = [" data.name = cifar10", "run.seed=3 ", "lone word"]
    assert override_words(words) == ["data.name= cifar10", "run.seed=3 ", "lone word"]
    assert given_keys(words) == ["data.name", "run.seed", "lone word"]
    assert given_keys({" run.seed ": 3}) == given_keys("run.seed =3") == ["run.seed"]
    assert load_config([], words[:2]) == load_config([], ["data.name=cifar10", "run.seed=3"])
    file = tmp_path / "x.yaml"
    file.write_text("schedule:\n  min_lr: 0.5\n")
    assert "line" not in faults("schedule.min_lr = 0.6", files=(file,))[0]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["schedule.min_lr=0.5"], "above optimizer.lr"),
        (["data.sampling=balanced", "data.augment.flip=alternate"], "set augment.flip=random"),
        (["data.sampling=balanced", "task.class_weights=balanced"], "take one of them"),
        (["schedule.name=trapezoid", "schedule.warmup=0.9"], "together they are at most 1"),
        (["data.batch_size=10", "trainer.accumulate_grad_batches=3"], "must divide by"),
        (["trainer.early_stopping_patience=2", "data.val_fraction=0"], "needs validation"),
        (["schedule.name=inverse_sqrt", "schedule.warmup=0"], "give a warmup above 0"),
        (["data.name=text"], "learns from images, but data.name=text is text"),
        (["data.name=text", "task.name=language_model"], "reads images, but data.name=text is"),
        (["model.name=gpt2"], "gpt2 reads text, but data.name=digits is images"),
        (
            ["data.name=parallel", "task.name=translation", "model.name=gpt2"],
            "is sentence pairs; take a model such as transformer_base, transformer_big",
        ),
        (
            ["data.name=text", "data.val_fraction=0", "trainer.early_stopping_patience=1"],
            "needs validation text",
        ),
    ],
)
def test_contradictions_between_sections(overrides: list[str], expected: str) -> None:
    assert any(expected in line for line in faults(*overrides))


@pytest.mark.parametrize(
    ("data", "task"), [("text", "language_model"), ("parallel", "translation")]
)
def test_a_persons_own_model_reads_no_words(
    monkeypatch: pytest.MonkeyPatch, data: str, task: str
) -> None:
    monkeypatch.setitem(CUSTOM, "my_net", "One of my own.")
    found = faults("model.name=my_net", f"data.name={data}", f"task.name={task}")
    assert len(found) == 1
    assert found[0].startswith(f"model.name: my_net reads images, but data.name={data} is ")
    assert "; take a model such as " in found[0]
    assert load_config([], ["model.name=my_net"]).model.name == "my_net"


def test_names_choose_the_keys_of_their_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(TaskConfig):
        learns_from: ClassVar[str] = "numbers"
        name: Literal["counting"] = "counting"
        highest: int = 10

    class Numbers(DataConfig):
        kind: ClassVar[str] = "numbers"
        name: Literal["numbers"] = "numbers"
        digits: int = 3

    monkeypatch.setitem(TASKS, "counting", Counting)
    monkeypatch.setitem(DATA_CONFIGS, "numbers", Numbers)
    config = load_config(overrides=["task.name=counting", "data.name=numbers", "data.digits=4"])
    assert to_plain(config)["task"] == {"name": "counting", "highest": 10}
    assert to_plain(config)["data"]["digits"] == 4
    assert load_config(base=to_plain(config)) == config

    assert faults("task.name=counting", "data.name=digits") == [
        "task.name: counting learns from numbers, but data.name=digits is images; change one of "
        "the two"
    ]
    assert faults("task.name=counting", "data.name=numbers", "task.mixup=1") == [
        "task.mixup: unknown key"
    ]
    assert faults("task.name=counting", "data.name=numbers", "trainer.monitor=val/acc") == [
        "trainer.monitor: counting has no val/acc; set val/loss or auto"
    ]


def test_files_are_faulted_by_name(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("data: {name: digits}\n")
    assert "did you mean" in faults(files=(tmp_path / "god.yaml",))[0]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cct_cifar.yaml").touch()
    for name in ("cct_cifar.yaml", "cct_cifar", "cct_cifr.yaml"):
        meant = tmp_path / "configs" / "cct_cifar.yaml"
        assert f"did you mean {meant}?" in faults(files=(tmp_path / name,))[0]
    bad = tmp_path / "bad.yaml"
    bad.write_text("data:\n  name: [\n")
    assert "line" in faults(files=(bad,))[0]
    twice = tmp_path / "twice.yaml"
    twice.write_text("data:\n  name: digits\n  name: digits\n")
    assert "given twice" in faults(files=(twice,))[0]


def test_order_is_base_files_overrides_and_extends(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optimizer: {lr: 1e-2, eps: 1e-7}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\noptimizer: {lr: 2e-2}\n")
    config = load_config([tmp_path / "b.yaml"], ["optimizer.momentum=0.5"])
    assert (config.optimizer.lr, config.optimizer.eps, config.optimizer.momentum) == (
        2e-2,
        1e-7,
        0.5,
    )
    assert load_config(base=to_plain(config), overrides=["optimizer.lr=3e-2"]).optimizer.lr == 3e-2


def test_what_is_left_to_timm_stays_so_when_it_is_written_and_read_again(tmp_path: Path) -> None:
    def read_again(*words: str) -> list[RunConfig]:
        config = load_config([], ["optimizer.name=timm/lion", *words])
        file = tmp_path / "again.yaml"
        file.write_text(dump_yaml(config))
        return [config, load_config(base=to_plain(config)), load_config([file])]

    for config in read_again("optimizer.lr=0.5"):
        assert config.optimizer.lr == 0.5 and config.optimizer.given_to_timm() == {}
    for config in read_again("optimizer.betas=[0.9, 0.999]"):
        assert config.optimizer.given_to_timm() == {"betas": (0.9, 0.999)}
    old = to_plain(load_config([], ["optimizer.name=timm/lion"]))
    old["optimizer"] |= {"betas": [0.9, 0.999], "eps": 1e-8}  # as earlier versions wrote it
    assert load_config(base=old).optimizer.given_to_timm() == {}


def test_another_optimiser_leaves_the_rates_of_the_one_before(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "optimizer: {name: muon, lr: 0.03, weight_decay: 0.0, betas: [0.8, 0.9]}\n"
        "schedule: {name: linear, warmup: 0.1}\n"
    )
    child = tmp_path / "child.yaml"
    child.write_text("extends: recipe.yaml\noptimizer: {name: adamw}\n")
    fresh = load_config([], ["data.name=cifar10"]).optimizer
    kept = load_config([recipe], ["optimizer.name=muon", "schedule.name=cosine"])
    assert (kept.optimizer.lr, kept.optimizer.betas, kept.schedule.warmup) == (
        0.03,
        (0.8, 0.9),
        0.1,
    )
    assert load_config([recipe], ["optimizer.name=adamw"]).optimizer == fresh
    assert load_config([child]).optimizer == fresh
    # A run's own file has all values, given or not; so has a config that was resolved.
    again = load_config(base=to_plain(kept), overrides=["optimizer.name=sgd"]).optimizer
    assert (again.lr, again.weight_decay) == (0.1, 5e-4)
    # What stands beside the name, before it or behind it, is meant for it.
    for words in (
        ["optimizer.lr=0.5", "optimizer.name=sgd"],
        ["optimizer.name=sgd", "optimizer.lr=0.5"],
    ):
        assert load_config([recipe], words).optimizer.lr == 0.5
    assert load_config([recipe], ["schedule.name=one_cycle"]).schedule.warmup == 0.3


def test_to_repeat_what_the_embedded_default_chose_changes_nothing() -> None:
    plain = load_config()
    assert load_config([], ["optimizer.name=adamw", "task.name=classification"]) == plain


def test_one_override_or_file_may_stand_alone(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optimizer: {lr: 1e-2}\n")
    config = load_config(str(tmp_path / "a.yaml"), "trainer.max_epochs=3")
    assert (config.optimizer.lr, config.trainer.max_epochs) == (1e-2, 3)


def test_a_way_of_fine_tuning_by_its_name_merges_with_its_other_settings() -> None:
    file = CONFIGS / "finetune_folder.yaml"
    for words in (
        ["task.finetune=lora", "task.finetune.rank=16"],
        ["task.finetune.rank=16", "task.finetune=lora"],
    ):
        tuning = load_config([file], words).task.finetune
        assert (tuning.mode, tuning.rank, tuning.zero_head) == ("lora", 16, True)


def test_another_task_leaves_the_embedded_recipe() -> None:
    assert load_config([], ["task.name=mae"]).model.name == "vit_digits"
    assert not load_config([], ["task.name=dino"]).ema.enabled


def test_the_embedded_default_steps_back_for_another_choice() -> None:
    assert load_config().model.name == "vit_digits"
    assert load_config([], ["run.seed=3"]).model.name == "vit_digits"
    other = load_config([], ["data.name=cifar10"])
    assert other.model.name == "vit_mini_patch4_32"
    assert not other.ema.enabled


def test_arguments_split_into_files_and_overrides(tmp_path: Path) -> None:
    assert split_arguments([]) == ([], [])
    assert split_arguments(["a.yaml", "b.c=1", "d"]) == (["a.yaml", "d"], ["b.c=1"])
    (tmp_path / "lr=0.1").mkdir()
    there = str(tmp_path / "lr=0.1")
    assert split_arguments([there, "b.c=1"]) == ([there], ["b.c=1"])
    long = f"data.root={'x' * 400}"  # no system has names so long
    assert split_arguments([long, "a.yaml"]) == (["a.yaml"], [long])
    for words in (["data.root", "data"], ["x.yaml", "data.root", "=data"]):
        with pytest.raises(
            ConfigError, match=r"data\.root: a setting is one word, data\.root=data"
        ):
            split_arguments(words)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("--epochs", "trainer.max_epochs"),
        ("--batch-size", "data.batch_size"),
        ("learning_rate", "optimizer.lr"),
        ("max_epoch", "trainer.max_epochs"),
        ("--seed", "run.seed"),
        ("xyzzy", None),
    ],
)
def test_the_key_that_a_lone_word_means(name: str, key: str | None) -> None:
    assert suggest_key(name) == key


def test_every_key_is_described() -> None:
    rows = describe_keys()
    assert len(rows) > 60
    assert all(description for _, _, description in rows)
    assert set(SYNONYMS.values()) <= {key for key, _, _ in rows}

"""Every check names its key as it is written on the command line, and a config survives its own file."""

from __future__ import annotations

import dataclasses
import re
from functools import partial

import pytest
import yaml

from bridges.config import (
    BehavioursConfig,
    BridgeConfig,
    CircuitsConfig,
    CompareConfig,
    Config,
    ControlsConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    SparseConfig,
    TermConfig,
    TrackingConfig,
    TrainConfig,
    VerdictConfig,
    flat,
    from_dict,
    to_dict,
)
from bridges.config.search import CircuitSettings
from bridges.errors import ConfigError
from bridges.runs.initialise import shipped_pair

TERMS = ("ce", "kl", "nmse_encoder", "nmse_decoder", "kl_d2s", "kl_s2d")
files = partial(DataConfig, source="files", path="somewhere")

REFUSED = [
    (Config, "", "sparsity", 0.0),
    (Config, "", "sparsity", -0.1),
    (Config, "", "sparsity", 1.0001),
    (ModelConfig, "model.", "dtype", "fp16"),
    (DataConfig, "data.", "source", "pyhton"),
    (DataConfig, "data.", "context", 1),
    (DataConfig, "data.", "max_chars", 0),
    (SparseConfig, "sparse.", "bigram", "fulll"),
    (SparseConfig, "sparse.", "activation", "silu"),
    (SparseConfig, "sparse.", "position", "rotary"),
    (SparseConfig, "sparse.", "n_layer", 0),
    (SparseConfig, "sparse.", "d_model", -1),
    (SparseConfig, "sparse.", "d_mlp", 0),
    (SparseConfig, "sparse.", "d_head", 0),
    (SparseConfig, "sparse.", "bigram_rank", 0),
    (SparseConfig, "sparse.", "initializer_range", 0.0),
    (SparseConfig, "sparse.", "activation_fraction", 0.0),
    (SparseConfig, "sparse.", "floor", -1),
    (BridgeConfig, "bridge.", "init", "rigde"),
    (BridgeConfig, "bridge.", "every", 0),
    (BridgeConfig, "bridge.", "ridge", 0.0),
    (BridgeConfig, "bridge.", "activation_fraction", 0.0),
    (BridgeConfig, "bridge.", "activation_fraction", 1.5),
    *[(TermConfig, "train.terms.", term, -0.5) for term in TERMS],
    (TrainConfig, "train.", "precision", "fp16"),
    (TrainConfig, "train.", "optimizer", "adam"),
    (TrainConfig, "train.", "anneal_shape", "cosine"),
    (TrainConfig, "train.", "gradient_rms", "normalize"),
    *[
        (TrainConfig, "train.", key, value)
        for key in (
            "tokens",
            "batch",
            "accumulate",
            "lr",
            "bridge_lr",
            "muon_lr",
            "eps",
            "max_grad_rms",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        )
        for value in (0, -1)
    ],
    (TrainConfig, "train.", "lr", float("nan")),
    (TrainConfig, "train.", "warmup", -0.1),
    (TrainConfig, "train.", "warmup", 1.1),
    (TrainConfig, "train.", "anneal", 2.0),
    (TrainConfig, "train.", "hybrid_sites", "0"),
    (TrainConfig, "train.", "hybrid_sites", "some"),
    (TrainConfig, "train.", "hybrid_sites", "-1"),
    (EvalConfig, "eval.", "sequences", 0),
    (EvalConfig, "eval.", "batch", 0),
    (EvalConfig, "eval.", "bootstrap", -5),
    (EvalConfig, "eval.", "ridge_tokens", 0),
    (TrackingConfig, "tracking.", "mode", "on"),
    (BehavioursConfig, "behaviours.", "suite", "pyhton"),
    (BehavioursConfig, "behaviours.", "pairs", 0),
    (CircuitsConfig, "circuits.", "objective", "faithfull"),
    (CircuitsConfig, "circuits.", "ablation", "means"),
    (CircuitsConfig, "circuits.", "max_node_fraction", 0.0),
    (CircuitsConfig, "circuits.", "max_node_fraction", 1.5),
    (CircuitsConfig, "circuits.", "top_activations", -1),
    *[
        (CircuitsConfig, "circuits.", key, 0)
        for key in ("target", "carried_target", "pairs", "steps", "batch", "lr", "temperature", "workers")
    ],
    *[
        (CircuitsConfig, "circuits.", key, -1)
        for key in ("penalty", "penalty_rate", "min_penalty", "carried_weight", "warm_start", "prune_attempts")
    ],
    *[(ControlsConfig, "circuits.controls.", key, 0) for key in ("pairs", "draws", "random_sets", "adversary_steps")],
    *[(CompareConfig, "compare.", key, 0) for key in ("pairs", "train_pairs", "draws", "bootstrap")],
    *[(VerdictConfig, "verdict.", key, 1.5) for key in ("fvu", "faithfulness", "necessity", "ceiling", "alpha")],
]


@pytest.mark.parametrize(("cls", "prefix", "key", "value"), REFUSED, ids=lambda x: str(x).removeprefix("<class "))
def test_a_value_that_cannot_be_names_its_key(cls, prefix, key, value):
    with pytest.raises(ConfigError, match=rf"^{re.escape(prefix + key)}=({re.escape(repr(value))}|{value}) "):
        cls(**{key: value})


@pytest.mark.parametrize(
    ("make", "nearest"),
    [
        (lambda: DataConfig(source="pyhton"), "'python'"),
        (lambda: BridgeConfig(init="rigde"), "'ridge'"),
        (lambda: TrainConfig(gradient_rms="normalize"), "'normalise'"),
        (lambda: SparseConfig(position="learnt"), "'learned'"),
        (lambda: TrackingConfig(mode="ofline"), "'offline'"),
    ],
)
def test_a_misspelt_choice_names_the_nearest(make, nearest):
    with pytest.raises(ConfigError, match=f"Did you mean.*{nearest}"):
        make()


@pytest.mark.parametrize(("source", "what"), [("files", "folder"), ("hub", "dataset id")])
def test_a_source_without_a_path_asks_for_one(source, what):
    with pytest.raises(ConfigError, match=rf"data\.source={source} needs data\.path=<{what}>"):
        DataConfig(source=source)


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(ConfigError, match=r"^train\.batch=8 must be a multiple of train\.accumulate=3"):
        TrainConfig(batch=8, accumulate=3)


def test_terms_that_are_all_off_are_refused():
    off = dict.fromkeys(TERMS)
    for zero in ({}, {"ce": 0.0}):
        with pytest.raises(ConfigError, match=r"train\.terms: at least one"):
            TermConfig(**(off | zero))


def test_values_at_the_edge_are_taken():
    assert Config(sparsity=1.0).sparsity == 1.0
    assert TrainConfig(batch=6, accumulate=3, hybrid_sites="4", warmup=0, anneal=1).accumulate == 3
    assert SparseConfig(activation_fraction=None, floor=0, n_layer=None).activation_fraction is None
    assert BridgeConfig(activation_fraction=None, every=None).every is None
    assert files(max_chars=None, context=2).path == "somewhere"
    assert EvalConfig(double_paths=0).double_paths == 0


def test_coefficients_leave_out_what_is_absent_and_keep_what_is_zero():
    assert TermConfig(ce=0.5, kl=None, nmse_decoder=0.0).coefficients() == {
        "ce": 0.5,
        "nmse_encoder": 1.0,
        "nmse_decoder": 0.0,
        "kl_d2s": 1.0,
        "kl_s2d": 1.0,
    }


def test_an_empty_label_is_the_last_part_of_the_name():
    assert ModelConfig(name="org/gpt2-small/", label="").label == "gpt2-small"
    assert ModelConfig(name="gpt2", label="").label == "gpt2"


CHANGED = Config(
    seed=7,
    sparsity=0.01,
    name="x",
    model=ModelConfig(name="gpt2", label="g", revision="main"),
    data=files(context=64),
    sparse=SparseConfig(n_layer=3, activation_points=["q", "mlp_neuron"], activation_fraction=None),
    bridge=BridgeConfig(every=2, init="random"),
    train=TrainConfig(lr=0.5, hybrid_sites="2", terms=TermConfig(kl=None, kl_s2d=0.0)),
    eval=EvalConfig(double_paths=None),
    tracking=TrackingConfig(mode="offline", tags=["a", "b"]),
)


@pytest.mark.parametrize("config", [Config(), CHANGED], ids=["defaults", "changed"])
def test_round_trip_through_a_dictionary_and_through_yaml(config):
    values = to_dict(config)
    assert from_dict(values) == config
    again = from_dict(yaml.safe_load(yaml.safe_dump(values, sort_keys=False)))
    assert again == config
    assert isinstance(again.train.terms, TermConfig) and isinstance(again.sparse, SparseConfig)


def test_a_partial_dictionary_keeps_the_defaults():
    config = from_dict({"train": {"lr": 0.25, "terms": {"ce": 2.0}}})
    assert config == Config(train=TrainConfig(lr=0.25, terms=TermConfig(ce=2.0)))
    assert from_dict({}) == Config()


@pytest.mark.parametrize(
    ("values", "key", "nearest"),
    [
        ({"sparsety": 0.1}, "sparsety", "sparsity"),
        ({"train": {"bach": 3}}, "train.bach", "batch"),
        ({"train": {"terms": {"kl_s2": 1.0}}}, "train.terms.kl_s2", "kl_s2d"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest(values, key, nearest):
    with pytest.raises(ConfigError, match=rf"Unknown key {re.escape(key)}\. Did you mean.*'{nearest}'"):
        from_dict(values)


def test_checks_run_on_what_is_read():
    with pytest.raises(ConfigError, match=r"train\.lr=-1"):
        from_dict({"train": {"lr": -1}})


def test_flat_keys_are_every_leaf():
    values = flat(CHANGED)
    assert (values["seed"], values["train.lr"], values["tracking.tags"]) == (7, 0.5, ["a", "b"])
    assert values["train.terms.kl"] is None

    def leaves(cls) -> int:
        return sum(
            leaves(type(f.default_factory()))
            if f.default_factory is not dataclasses.MISSING and dataclasses.is_dataclass(f.default_factory())
            else 1
            for f in dataclasses.fields(cls)
        )

    assert len(values) == leaves(Config)


def test_a_number_of_sites_may_be_given_as_a_number():
    assert str(TrainConfig(hybrid_sites=2).hybrid_sites) == "2"  # type: ignore[arg-type]


def test_a_section_must_be_a_section():
    with pytest.raises(ConfigError, match=r"train=3 must be a section"):
        from_dict({"train": 3})
    with pytest.raises(ConfigError, match=r"train\.terms=None must be a section"):
        from_dict({"train": {"terms": None}})


def test_double_paths_may_be_none_but_not_negative():
    assert EvalConfig(double_paths=0).double_paths == 0
    with pytest.raises(ConfigError, match=r"eval\.double_paths=-1"):
        EvalConfig(double_paths=-1)


def test_verdicts_are_given_on_learned_circuits():
    with pytest.raises(ConfigError, match=r"circuits\.baselines=\[attribution\]"):
        CircuitsConfig(method="attribution")
    with pytest.raises(ConfigError, match=r"circuits\.baselines"):
        CircuitsConfig(baselines=["learned"])


def test_a_search_gets_the_settings_of_circuits_and_what_is_changed():
    config = CircuitsConfig(steps=7, target=0.3)
    settings = config.settings(method="attribution", prune_attempts=2)
    assert type(settings) is CircuitSettings
    assert (settings.steps, settings.target, settings.method, settings.prune_attempts) == (7, 0.3, "attribution", 2)


def test_controls_run_in_their_own_order_and_null_searches_only_where_they_are_named():
    everything = ControlsConfig().selected
    assert everything[:2] == ("necessity", "consistent_labels")
    assert not {"shuffled_labels", "adversarial", "seeds"} & set(everything), "what takes long is asked for"
    assert ControlsConfig(names=["seeds", "necessity"]).selected == ("necessity", "seeds")
    assert ControlsConfig(names=[]).selected == ()
    with pytest.raises(ConfigError, match=r"circuits\.controls\.names.*'necessity'"):
        ControlsConfig(names=["necesity"])
    with pytest.raises(ConfigError, match=r"circuits\.controls\.seeds=1"):
        ControlsConfig(seeds=1)


def test_steps_against_an_adversary_belong_to_the_published_objective():
    with pytest.raises(ConfigError, match=r"circuits\.adversarial_steps.*objective=task_loss"):
        CircuitsConfig(adversarial_steps=10)
    assert CircuitsConfig(adversarial_steps=10, objective="task_loss").adversarial_steps == 10


def test_a_suite_of_a_file_asks_for_it():
    with pytest.raises(ConfigError, match=r"behaviours\.suite=file needs behaviours\.path"):
        BehavioursConfig(suite="file")


def test_a_hand_written_value_of_the_wrong_type_names_its_key():
    # What YAML makes of 1e-3.
    with pytest.raises(ConfigError, match=r"train\.lr.*1e-3"):
        from_dict({"train": {"lr": "1e-3"}})


def test_the_shipped_pair_s_settings_can_be_read():
    values = yaml.safe_load((shipped_pair("tinypython") / "config.yaml").read_text())
    config = from_dict(values)
    assert config.sparsity == 0.05 and config.train.tokens == 45_228_032 and config.circuits.models == []

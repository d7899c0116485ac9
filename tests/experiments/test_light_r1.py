"""Light-R1's curriculum: chains and their check, filters by the model itself, own wrong traces, averages, stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import light_r1
from experiments.light_r1 import experiment as paper
from experiments.light_r1.chains import Checker, chains, decode, domain, solve
from rl_jax.core.main import run
from rl_jax.language.sampler import Sampling, sample
from rl_jax.losses.preference import nca_loss


def configured(preset, fields={}):
    config = light_r1.get_config(preset)
    config.update_from_flattened_dict({"tensorboard": False, **fields})
    return config


# The task


def test_a_trace_writes_every_running_value():
    assert solve(37, [("+", 5), ("*", 4)]) == ("+5=42*4=68", 68)
    assert solve(90, [("+", 9), ("+", 3), ("*", 7)]) == ("+9=99+3=2*7=14", 14)  # modulo 100


def test_chains_are_different_solved_and_of_the_levels_asked():
    found = chains(200, (2, 4), seed=5)
    assert len({problem.text for problem in found}) == 200 and {problem.level for problem in found} == {2, 3, 4}
    for problem in found:
        text = decode(problem.prompt).removesuffix("=")
        assert text == problem.text and sum(text.count(x) for x in "+*") == problem.level
        value = 0
        for operator, operand in zip("+" + "".join(x for x in text if x in "+*"), text.replace("*", "+").split("+")):
            value = (value + int(operand) if operator == "+" else value * int(operand)) % 100
        assert problem.row["answer"] == value and decode(problem.trace).endswith(f"={value}\n")
    assert [problem.text for problem in chains(200, (2, 4), seed=5)] == [problem.text for problem in found]


def test_nothing_that_is_judged_is_trained_on():
    found = domain(configured("quick"))
    judged = {problem.text for problem in (*found.hard, *found.easy)}
    for name, pool in found.pools.items():
        assert judged.isdisjoint(problem.text for problem in pool), name
        longest = max(len(problem.prompt) + len(problem.trace) for problem in pool)
        assert longest <= found.decoder.context_length and max(len(x.trace) for x in pool) <= 42
    assert {problem.level for problem in found.hard} == {6, 7}


def test_a_response_that_was_cut_off_is_wrong_whatever_it_ends_with():
    row = {"answer": 8, "response_tokens": 4}  # three letters and the one that ends it
    whole, cut = Checker(8).scores([row, {**row, "response_tokens": 3}], ["1=8", "1=8"], 0.0)
    assert (whole.score, cut.score, cut.parts["right"]) == (1.0, 0.0, 0.0)
    assert [x.score for x in Checker(8).scores([row, row], ["1=9", "="], 0.0)] == [0.0, 0.0]
    late = {"answer": 8, "response_tokens": 7}  # one of the last two tokens of eight is used
    assert Checker(8, 0.2).scores([late], ["1+1+1=8"[:6]], 0.0)[0].score == pytest.approx(-0.1)


# What a model chooses for itself


def with_rates(monkeypatch, rates):
    monkeypatch.setattr(paper, "rates_of", lambda domain, start, pool, *others: rates[: len(pool)] + start)


def test_filters_keep_the_hardest_and_the_band_of_each_seeds_own_model(monkeypatch):
    config = configured("tiny-sft2", {"filter.candidates": 10, "filter.kept": 3})
    task = domain(config)
    with_rates(monkeypatch, np.linspace(0.9, 0.0, 10))
    kept, read = paper.filtered(config, task, [0.0, 0.0])
    assert [{x.text for x in own} for own in kept] == [{x.text for x in task.pools["deep"][7:10]}] * 2
    assert read["filter"]["seed"] == config.filter.seed
    assert read["filter"]["pass_rates"][0]["kept"] == pytest.approx(0.1)
    config.filter.update({"kind": "band", "low": 0.19, "high": 0.625, "kept": 12})
    (own, other), read = paper.filtered(config, task, [0.0, 0.1])
    texts = [x.text for x in task.pools["deep"]]
    assert {texts.index(x.text) for x in own} == {3, 4, 5, 6, 7} and len(own) == 12  # 0.6 to 0.2
    assert {texts.index(x.text) for x in other} == {4, 5, 6, 7, 8}
    with_rates(monkeypatch, np.zeros(10))
    with pytest.raises(ValueError, match="no problem of 10 has a pass rate from config.filter.low=0.19 to high=0.625"):
        paper.filtered(config, task, [0.0])


def test_questions_of_all_seeds_have_one_width(monkeypatch):
    """The problems that the band keeps of one seed may be shorter than those of another."""
    short, long = ([x for x in chains(40, (1, 3), 9) if x.level == level][:4] for level in (1, 3))
    monkeypatch.setattr(paper, "filtered", lambda *_: ([short, long], {}))
    config = configured("tiny-grpo")
    task = domain(config)
    make, _ = paper.grpo_stage(config, task, task.load("start", ""))
    programs = [make(config, number, start) for number, start in enumerate(task.load("start", ""))]
    one, other = (program.resident["train"][0] for program in programs)
    assert one.shape == other.shape and decode(one[0]).rstrip("\n") == decode(short[0].prompt)


def test_rejected_traces_are_the_models_own_wrong_samples_and_chosen_ones_the_teachers():
    config = configured("tiny-dpo-nca")
    task = domain(config)
    (start, _), problems = task.load("start", ""), task.pools["deep"][:4]
    found = paper.own_pairs(config, task, start, 1, problems, 6)
    asked = paper.questions(problems)
    told = Sampling(max_new_tokens=config.judge.max_new_tokens, stop=(0,))
    own = sample(task.decoder, start, asked.tokens, asked.lengths, 2, told, jax.random.key(config.filter.seed + 1))
    sampled = {tuple(tokens[:length]) for tokens, length in zip(np.asarray(own.tokens), np.asarray(own.lengths))}
    for place, (tokens, segments) in enumerate(zip(found.second.tokens, found.second.segments)):
        assert tuple(tokens[segments > 0]) in sampled
        length = int((found.first.mask[place] == 0).argmin())
        assert tokens[:length].tolist() == found.first.tokens[place][:length].tolist()  # one prompt
    prompts = [decode(tokens).partition("=")[0] for tokens in found.first.tokens]
    assert len(set(prompts[:4])) == 4  # each problem once before any comes again
    chosen = zip(found.first.tokens, found.first.segments)
    traces = {decode(np.append(x.prompt, x.trace)) for x in problems}
    assert {decode(tokens[segments > 0]) for tokens, segments in chosen} == traces


def test_nca_limits_the_reward_of_the_chosen():
    """The term in the middle is on -r_w: beyond a height the chosen is pushed down, where plain likelihood never is."""
    slope = jax.grad(lambda chosen, rejected: nca_loss(chosen[None], rejected[None])[0], (0, 1))
    assert slope(0.0 * jnp.ones(()), jnp.zeros(())) == pytest.approx((-0.25, 0.25))
    assert float(slope(jnp.asarray(3.0), jnp.zeros(()))[0]) > 0.0
    assert float(slope(jnp.log(2.0), jnp.zeros(()))[0]) == pytest.approx(0.0, abs=1e-6)  # sigmoid = 2/3


# The average of weights


def test_the_average_is_summed_in_float32():
    """256 + 1 + 1 is 256 in bfloat16, whose step there is 2."""
    models = [{"w": jnp.full(2, x, jnp.bfloat16)} for x in (256.0, 1.0, 1.0)]
    assert paper.average(models)["w"].astype(np.float32).tolist() == [86.0, 86.0]
    assert paper.average([{"w": np.float32([1, 2])}, {"w": np.float32([3, 5])}])["w"].tolist() == [2.0, 3.5]
    with pytest.raises(ValueError, match="one base and one tokenizer"):
        paper.average([{"w": np.zeros(2)}, {"w": np.zeros(3)}])


# Stages


@pytest.mark.slow
def test_stages_pass_the_models_of_each_seed_on(tmp_path, monkeypatch):
    """Supervised learning of two seeds; each stage after it starts from both, and a seed alone from its own."""
    monkeypatch.setattr(paper, "rates_of", lambda domain, params, problems, *others: np.zeros(len(problems)))
    config = configured("tiny-sft1", {"num_steps": 2, "loop.eval_every": 0, "checkpoint.every": 0})
    run(paper.experiment, config, tmp_path / "first")
    task, start = domain(config), str(tmp_path / "first")
    trained, fresh = task.load("start", start), task.load("start", "")
    assert not np.allclose(trained[0]["norm"]["scale"], fresh[0]["norm"]["scale"], atol=1e-6)
    second = domain(configured("tiny-sft1", {"seed": 1, "num_seeds": 1})).load("start", start)
    assert jax.tree.all(jax.tree.map(np.array_equal, second[0], trained[1]))
    averaged = configured("tiny-average", {f"average.{name}": start for name in ("first", "second")})
    program = paper.experiment(averaged).program(averaged)
    wanted = [paper.average([own, own, new]) for own, new in zip(trained, fresh)]
    assert jax.tree.all(jax.tree.map(
        lambda found, *each: np.allclose(found, np.stack(each)),
        jax.tree.unflatten(jax.tree.structure(fresh[0]), program.resident["own"]), *wanted,
    ))
    with pytest.raises(ValueError, match=r"config.start=.*first has 2 seeds from 0, and this run \[1, 2\]"):
        domain(configured("tiny-sft1", {"seed": 1})).load("start", start)
    with pytest.raises(ValueError, match="config.start=.*first has no params/policy/.* of shape"):
        domain(configured("tiny-sft1", {"decoder.width": 8})).load("start", start)


@pytest.mark.parametrize("fields, message", [
    ({"stage": "ppo"}, "unknown config.stage 'ppo': did you mean dpo"),
    ({"domain": "chain"}, "unknown config.domain 'chain': did you mean chains"),
    ({"filter.kind": "easy"}, "unknown config.filter.kind 'easy'"),
    ({"pool": "wide"}, "unknown config.pool 'wide'"),
    ({"start": "nowhere"}, "config.start=nowhere is not the --workdir of a finished run: run that stage first"),
])
def test_settings_that_cannot_work_are_named(fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        paper.experiment(configured("tiny-sft2", fields))


def test_word_problems_take_the_same_way():
    """GSM8K read for a small model: levels by lines, prompts without their solutions, no seed but one."""
    config = configured("tiny-gsm8k-sft1")
    task = paper.DOMAINS["texts"](config)
    problem = task.pools["deep"][0]
    text = task.words.decode(problem.trace.tolist())
    assert text.rstrip().endswith(problem.row["answer"]) and 3 <= problem.level <= 8
    assert problem.text.split()[0] in task.words.decode(problem.prompt.tolist())
    scorer = task.scorer()
    assert [x.score for x in scorer.scores([problem.row] * 2, [text, "no"], 0.0)] == [1.0, 0.0]
    with pytest.raises(ValueError, match="no problem of gsm8k has config.data.deep=90 to 99 lines"):
        paper.DOMAINS["texts"](configured("tiny-gsm8k-sft1", {"data.deep": (90, 99)}))

"""Chat templates: what they write, whose words are whose, and what a template may not do."""

import numpy as np
import pytest

from rl_jax.language import template_worker
from rl_jax.language.chat import ChatTemplate
from rl_jax.language.text import Tokenizer
from tests.language import folders

BYTES = Tokenizer(folders.backend(), eos=260, pad=260, source="tiny")
TALK = [
    {"role": "user", "content": "7 + 5?"}, {"role": "assistant", "content": "12"},
    {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes"},
]
MARKED = (
    "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}<|end|>{% endgeneration %}{% else %}{{ message.content }}<|end|>{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def template(source, **special):
    return ChatTemplate(source, BYTES.names() | special, "the template of tiny")


@pytest.fixture(scope="module")
def plain():
    return template(folders.TEMPLATE)


@pytest.fixture(scope="module")
def marked():
    return template(MARKED)


def test_a_prompt_ends_where_the_assistant_begins(plain):
    assert plain.render(TALK[:1]) == "<|user|>7 + 5?<|end|>\n"
    assert plain.render(TALK[:1], add_generation_prompt=True) == "<|user|>7 + 5?<|end|>\n<|assistant|>"
    assert plain.prompt(BYTES, TALK[:1])[-1] == BYTES.single_token("<|assistant|>")


@pytest.mark.parametrize("name", ["plain", "marked"])
def test_the_assistants_words_are_found_with_marks_and_without(name, request):
    found = request.getfixturevalue(name).rendered(TALK)
    assert [found.text[start:end] for start, end in found.spans] == ["12<|end|>", "Yes<|end|>"]
    tokens, mask = request.getfixturevalue(name).encoded(BYTES, TALK)
    assert BYTES.decode(tokens, special=True) == found.text
    assert BYTES.decode(tokens[mask], special=True) == "12<|end|>Yes<|end|>"
    assert mask.dtype == bool and not mask[0] and not mask[-1]


def test_a_sampled_answer_is_followed_without_encoding_it_again(plain, marked):
    for one in (plain, marked):
        after = one.next_turn(BYTES, TALK[:3])
        assert BYTES.decode(after, special=True) == "\n<|user|>Sure?<|end|>\n<|assistant|>"
        whole = [*one.prompt(BYTES, TALK[:1]), *BYTES.encode("12<|end|>"), *after]
        np.testing.assert_array_equal(whole, one.prompt(BYTES, TALK[:3]))
    with pytest.raises(ValueError, match="there is no answer of the assistant"):
        plain.next_turn(BYTES, TALK[:1])


def test_what_templates_are_written_for():
    source = (
        "{{ bos_token }}{% for tool in tools %}\n    {% if loop.index > 2 %}{% break %}{% endif %}\n"
        "{{ tool | tojson }}\n{% endfor %}\n{% if strftime_now is defined %}now{% else %}then{% endif %}"
    )
    tools = [{"name": "é<b>"}, {"n": 1}, {}]
    assert template(source, bos_token="B").render([], tools=tools) == 'B{"name": "é<b>"}\n{"n": 1}\nthen'
    indented = template("{{ messages | tojson(indent=1) }}")
    assert indented.render([{"role": "user"}]) == '[\n {\n  "role": "user"\n }\n]'


def test_no_message_can_forge_a_mark(marked):
    forged = [{"role": "user", "content": "{% generation %}x{% endgeneration %} \0open\0"}, *TALK[1:2]]
    found = marked.rendered(forged)
    assert [found.text[start:end] for start, end in found.spans] == ["12<|end|>"]
    assert "{% generation %}x{% endgeneration %} \0open\0" in found.text


def test_a_template_that_rewrites_what_came_before_is_told():
    forgets = template("{% for message in messages[-2:] %}{{ message.content }}<|end|>{% endfor %}")
    with pytest.raises(ValueError, match="writes the messages before the assistant's message 1 in another way"):
        forgets.rendered(TALK)


@pytest.mark.parametrize(
    "source, message",
    [
        ("{{ raise_exception('roles must alternate') }}", "TemplateError: roles must alternate"),
        ("{{ messages.append(1) }}", "it reaches for what a template may not touch"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "may not touch"),
        ("{% include '/etc/passwd' %}", "TypeError: no loader|fails on these messages"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ absent.field }}", "UndefinedError: 'absent' is undefined"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("{{ 'a' * 20000000 }}", "it writes 20000000 letters"),
        ("{{ 'a' * 1000000000 }}", "takes (more than|too much)"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes too much time"),
    ],
)
def test_what_a_template_may_not_do_is_one_error(source, message):
    with pytest.raises(ValueError, match=message) as error:
        template(source).render(TALK)
    assert str(error.value).startswith("the template of tiny ")
    assert "was published with" in str(error.value)


def test_messages_are_plain_values(plain):
    with pytest.raises(ValueError, match="JSON cannot say what the messages hold"):
        plain.render([{"role": "user", "content": np.arange(3)}])


def test_after_a_template_took_too_long_the_next_render_is_answered():
    sometimes = template("{% if messages %}{{ 9 ** (9 ** (5 + messages | length)) }}{% endif %}fine")
    with pytest.raises(ValueError, match="takes too much time"):
        sometimes.render(TALK)
    assert sometimes.render([]) == "fine"


def test_the_process_ends_with_its_template():
    one = template(folders.TEMPLATE)
    one.render(TALK)
    process = one._process
    del one
    assert process.wait(timeout=10) == 0


def test_the_worker_is_the_program_that_renders():
    assert template_worker.answer("{{ x }}", '{"x": 3}') == {"text": "3", "spans": []}
    assert "rl_jax.language.template_worker" == template_worker.__name__

"""Which calls of LlamaIndex ask the same question: what is compared by meaning, what exactly, what not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.chat_engine.condense_question import DEFAULT_TEMPLATE as CONDENSE_QUESTION
from llama_index.core.extractors.metadata_extractors import (
    DEFAULT_QUESTION_GEN_TMPL,
    DEFAULT_SUMMARY_EXTRACT_TEMPLATE,
    DEFAULT_TITLE_NODE_TEMPLATE,
)
from llama_index.core.llms import MockLLM
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, SelectorPromptTemplate
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_REFINE_PROMPT_SEL, DEFAULT_TEXT_QA_PROMPT_SEL
from llama_index.core.prompts.default_prompts import DEFAULT_CHOICE_SELECT_PROMPT, DEFAULT_HYDE_PROMPT
from llama_index.core.prompts.utils import is_chat_model
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel, Field, PrivateAttr

from dispatch_core.types import Query
from llamaindex_dispatch.identity import Compare, Filled, Identity, Prompt, Rule
from llamaindex_dispatch.model import watch

IDENTITY = Identity("", ("query_str",), 200)
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(20)


def openai(**settings: Any) -> OpenAI:
    return OpenAI(**{"model": "gpt-4o-mini", "api_key": "k", "max_retries": 0, **settings})


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def asked(prompt: Prompt, llm: Any = None, rule: Rule = Compare.DIRECT, form: str = "chat", **options: Any) -> Query:
    return IDENTITY.query(llm or openai(), form, prompt, options, rule)


def direct(text: str, llm: Any = None, **options: Any) -> Query:
    return asked([user(text)], llm, **options)


class Person(BaseModel):
    name: str


# Direct calls


def test_a_plain_question_is_compared_by_meaning_within_the_scope_of_everything_else() -> None:
    one, other = direct("How do I pay?"), direct("What does it cost?")
    assert one.semantic
    assert (one.text, other.text) == ("How do I pay?", "What does it cost?")
    assert one.scope == other.scope


@pytest.mark.parametrize(
    "text",
    [
        "first line\nsecond line",
        "Observation: the tool said 4",
        "word " * 400,
        "",
    ],
    ids=["two lines", "an agent's observation", "too long", "empty"],
)
def test_what_is_no_plain_question_must_match_exactly(text: str) -> None:
    query = direct(text)
    assert not query.semantic
    assert query.scope != direct(f"{text} \n !").scope


@pytest.mark.parametrize("option", ["tools", "functions", "response_format"])
def test_a_call_with_tools_or_a_format_must_match_exactly(option: str) -> None:
    assert not direct("How do I pay?", **{option: [{"name": "pay"}]}).semantic
    assert direct("How do I pay?", **{option: None}).semantic


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(role="tool", content="4", additional_kwargs={"tool_call_id": "c1"}),
        ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_call_id="c1", tool_name="add")]),
        ChatMessage(role="assistant", content="x", additional_kwargs={"tool_calls": [{"id": "c1"}]}),
        ChatMessage(role="user", blocks=[TextBlock(text="look"), ImageBlock(image=PIXEL)]),
    ],
    ids=["tool message", "tool call", "legacy tool call", "image"],
)
def test_tools_and_images_in_the_history_make_the_call_exact(message: ChatMessage) -> None:
    assert not asked([message, user("And now?")]).semantic


def test_a_prompt_that_does_not_end_with_the_user_must_match_exactly() -> None:
    assert not asked([user("Hi"), ChatMessage(role="assistant", content="Sure:")]).semantic
    assert not asked([]).semantic


def test_the_system_prompt_and_every_earlier_turn_are_scope() -> None:
    def conversation(*turns: tuple[str, str]) -> str:
        return asked([*(ChatMessage(role=role, content=text) for role, text in turns), user("And?")]).scope

    scopes = [
        conversation(),
        conversation(("system", "Be brief.")),
        conversation(("system", "Be kind.")),
        conversation(("user", "Be brief.")),
        conversation(("user", "Hi"), ("assistant", "Hello")),
        conversation(("user", "Hi"), ("assistant", "Go away")),
    ]
    assert len(set(scopes)) == len(scopes)


def test_chat_and_completion_never_share_an_answer() -> None:
    assert asked("How do I pay?", form="complete").scope != direct("How do I pay?").scope


def test_completions_are_compared_by_meaning_when_they_are_one_line() -> None:
    assert asked("How do I pay?", form="complete").semantic
    assert not asked("Context:\nA\nQuestion: B", form="complete").semantic


def test_tenants_are_apart() -> None:
    query = Identity("acme", (), 200).query(openai(), "chat", [user("Hi")], {}, Compare.DIRECT)
    assert query.namespace == "acme"


# Settings and options


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "gpt-4o"},
        {"temperature": 0.9},
        {"max_tokens": 5},
        {"logprobs": True},
        {"system_prompt": "Be brief."},
        {"api_base": "http://elsewhere/v1"},
        {"additional_kwargs": {"seed": 1}},
        {"strict": True},
        {"completion_to_prompt": lambda prompt: prompt.upper()},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_setting_of_the_model_changes_the_scope(settings: dict[str, Any]) -> None:
    assert direct("Hi?").scope != direct("Hi?", openai(**settings)).scope


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "another"},
        {"timeout": 5.0},
        {"max_retries": 3},
        {"default_headers": {"Authorization": "Bearer s", "X-Api-Key": "s", "Cookie": "s", "X-Session-Token": "s"}},
        {"reuse_client": False},
        {"additional_kwargs": {"stream_options": {"include_usage": True}}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_secrets_and_transport_do_not(settings: dict[str, Any]) -> None:
    assert direct("Hi?").scope == direct("Hi?", openai(**settings)).scope


def test_a_mutated_setting_counts_at_once() -> None:
    llm = openai()
    before = direct("Hi?", llm).scope
    llm.temperature = 1.5
    assert direct("Hi?", llm).scope != before


def test_another_class_with_the_same_settings_is_another_model() -> None:
    class Other(MockLLM):
        pass

    assert direct("Hi?", MockLLM()).scope != direct("Hi?", Other()).scope


def test_nameless_prompt_functions_are_told_apart() -> None:
    def model(sign: str) -> OpenAI:
        return openai(completion_to_prompt=lambda prompt: prompt + sign)

    one, other = model("!"), model("?")
    assert direct("Hi?", one).scope == direct("Hi?", one).scope
    assert direct("Hi?", one).scope != direct("Hi?", other).scope


def test_every_option_of_a_call_changes_the_scope_but_transport() -> None:
    plain = direct("Hi?").scope
    assert direct("Hi?", temperature=0.5).scope != plain
    assert direct("Hi?", stop=["x"]).scope != direct("Hi?", stop=["y"]).scope
    assert direct("Hi?", timeout=3, stream_options={}, extra_headers={}).scope == plain


def test_tools_are_compared_by_their_description_and_output_classes_by_their_schema() -> None:
    def tool(description: str) -> FunctionTool:
        return FunctionTool.from_defaults(fn=lambda a: a, name="t", description=description)

    assert direct("Hi?", tools=[tool("adds")]).scope == direct("Hi?", tools=[tool("adds")]).scope
    assert direct("Hi?", tools=[tool("adds")]).scope != direct("Hi?", tools=[tool("takes")]).scope

    class Pet(BaseModel):
        name: str
        legs: int

    assert direct("Hi?", output_cls=Person).scope != direct("Hi?", output_cls=Pet).scope


@pytest.mark.parametrize("option", [object(), {1: "a"}, {"deep": [object()]}, Person(name="x")])
def test_an_option_without_a_stable_form_is_no_identity(option: Any) -> None:
    with pytest.raises(TypeError):
        direct("Hi?", option=option)


# Images


def picture(**source: Any) -> Query:
    return asked([ChatMessage(role="user", blocks=[ImageBlock(**source), TextBlock(text="What is this?")])])


def test_images_match_exactly_by_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PIXEL)
    assert not picture(image=PIXEL).semantic
    assert picture(image=PIXEL).scope == picture(image=PIXEL).scope
    assert picture(image=PIXEL).scope != picture(image=PIXEL + b"x").scope
    before = picture(path=path).scope
    path.write_bytes(PIXEL + b"x")
    assert picture(path=path).scope != before


def test_what_a_url_shows_may_change_so_it_is_no_identity(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        picture(url="https://example.com/a.png")
    gone = tmp_path / "gone.png"
    gone.write_bytes(PIXEL)
    block = ImageBlock(path=gone)
    gone.unlink()
    with pytest.raises(TypeError):
        asked([ChatMessage(role="user", blocks=[block])])


# Templates


def filled(template: Any, llm: Any = None, identity: Identity = IDENTITY, **args: Any) -> Query:
    llm = llm or openai()
    rule = identity.rule(llm, template, args)
    if llm.metadata.is_chat_model:
        return identity.query(llm, "chat", llm._get_messages(template, **args), {}, rule)
    return identity.query(llm, "complete", llm._get_prompt(template, **args), {}, rule)


@pytest.mark.parametrize("llm", [openai(), MockLLM()], ids=["chat", "completion"])
def test_of_a_rag_prompt_only_the_question_is_compared_by_meaning(llm: Any) -> None:
    template = DEFAULT_TEXT_QA_PROMPT_SEL
    one = filled(template, llm, context_str="Shops open at 9.", query_str="When do you open?")
    other = filled(template, llm, context_str="Shops open at 9.", query_str="Who owns the shop?")
    elsewhere = filled(template, llm, context_str="Shops open at 8.", query_str="When do you open?")
    assert one.semantic
    assert one.text == "When do you open?"
    assert one.scope == other.scope
    assert one.scope != elsewhere.scope


def test_the_answer_being_refined_is_scope() -> None:
    def refine(existing: str) -> Query:
        args = {"context_msg": "c", "existing_answer": existing, "query_str": "When?"}
        return filled(DEFAULT_REFINE_PROMPT_SEL, **args)

    assert refine("at 9").semantic
    assert refine("at 9").scope != refine("at 8").scope


def test_a_question_filled_in_earlier_is_found() -> None:
    template = DEFAULT_TEXT_QA_PROMPT_SEL.partial_format(query_str="When do you open?")
    assert filled(template, context_str="c").text == "When do you open?"


def test_a_renamed_variable_is_found() -> None:
    template = PromptTemplate("{c}: {q}", template_var_mappings={"query_str": "q", "context_str": "c"})
    assert filled(template, context_str="c", query_str="When?").text == "When?"


def test_other_variables_may_be_named_as_questions() -> None:
    identity = Identity("", ("question", "query_str"), 200)
    assert filled(PromptTemplate("{a} {question}"), identity=identity, a=1, question="When?").text == "When?"


@pytest.mark.parametrize(
    "template",
    [
        DEFAULT_HYDE_PROMPT,
        PromptTemplate("Say {word}"),
        PromptTemplate(CONDENSE_QUESTION),
        PromptTemplate(DEFAULT_TITLE_NODE_TEMPLATE),
        PromptTemplate(DEFAULT_QUESTION_GEN_TMPL),
        PromptTemplate(DEFAULT_SUMMARY_EXTRACT_TEMPLATE),
    ],
    ids=["hyde", "own", "condense question", "titles", "questions answered", "summary"],
)
def test_a_template_without_a_question_must_match_exactly(template: PromptTemplate) -> None:
    args = dict.fromkeys(template.template_vars, "x")
    assert not filled(template, **args).semantic


def test_a_question_that_the_template_does_not_use_is_no_question() -> None:
    template = PromptTemplate("Say {word}")
    assert not filled(template, word="a", query_str="When?").semantic
    assert filled(template, word="a", query_str="When?") == filled(template, word="a", query_str="Who?")


def test_templates_whose_variables_are_computed_or_whose_answers_are_parsed_must_match_exactly() -> None:
    computed = PromptTemplate("{context_str} {query_str}", function_mappings={"context_str": lambda **kwargs: "c"})
    parsed = PromptTemplate("{query_str}", output_parser=PydanticOutputParser(Person))
    assert not filled(computed, query_str="When?").semantic
    assert not filled(parsed, query_str="Who?").semantic
    assert not filled(
        PromptTemplate("{query_str}"), openai(output_parser=PydanticOutputParser(Person)), query_str="?"
    ).semantic


def test_the_template_that_the_model_selects_is_the_one_compared() -> None:
    chat = ChatPromptTemplate([ChatMessage(role=MessageRole.USER, content="Chat: {query_str}")])
    template = SelectorPromptTemplate(PromptTemplate("Complete: {query_str}"), [(is_chat_model, chat)])
    rule = IDENTITY.rule(openai(), template, {"query_str": "When?"})
    assert isinstance(rule, Filled)
    assert "Chat: " in str(rule.blank)


def test_a_long_question_in_a_template_must_match_exactly() -> None:
    assert filled(DEFAULT_CHOICE_SELECT_PROMPT, context_str="c", query_str="Why? " * 100).semantic
    assert not filled(DEFAULT_CHOICE_SELECT_PROMPT, context_str="c", query_str="Why? " * 200).semantic


def test_a_context_that_quotes_our_mark_is_not_mistaken_for_the_question() -> None:
    rule = IDENTITY.rule(openai(), PromptTemplate("{c} {query_str}"), {"c": "x", "query_str": "When?"})
    assert isinstance(rule, Filled)
    mark = rule.blank[0][1][0]["text"].removeprefix("x ")
    assert not filled(PromptTemplate("{c} {query_str}"), c=mark, query_str="When?").semantic


def test_a_filled_template_and_the_same_direct_question_share_their_answers() -> None:
    assert filled(PromptTemplate("{query_str}"), query_str="When?") == direct("When?")


# Headers


def test_headers_decide_what_is_answered_but_credentials_do_not() -> None:
    def asked_with(**headers: str) -> str:
        return direct("Hi?", extra_headers={name.replace("_", "-"): value for name, value in headers.items()}).scope

    assert asked_with(X_Tenant="a") == asked_with(x_tenant="a") != asked_with(X_Tenant="b")
    assert asked_with(X_Tenant="a", Authorization="Bearer 1") == asked_with(X_Tenant="a", Authorization="Bearer 2")
    assert direct("Hi?", include_response_headers=True).scope != direct("Hi?", include_response_headers=False).scope
    assert asked_with(api_key="1", cookie="1", X_Amz_Security_Token="1", Client_Secret="1") == direct("Hi?").scope


@pytest.mark.parametrize("name", ["default_headers", "additional_kwargs"])
def test_headers_of_the_model_count_like_those_of_a_call(name: str) -> None:
    def model(tenant: str) -> OpenAI:
        headers = {"X-Tenant": tenant}
        return openai(**{name: {"extra_headers": headers} if name == "additional_kwargs" else headers})

    assert direct("Hi?", model("a")).scope == direct("Hi?", model("a")).scope
    assert direct("Hi?", model("a")).scope != direct("Hi?", model("b")).scope


class Hiding(MockLLM):
    """Its headers are not in `to_dict`."""

    default_headers: dict[str, str] = Field(default_factory=dict, exclude=True)


def test_headers_that_a_model_does_not_serialise_count_too() -> None:
    one, other = Hiding(), Hiding()
    one.default_headers, other.default_headers = ({"X-Tenant": tenant, "Authorization": tenant} for tenant in "ab")
    assert direct("Hi?", one).scope != direct("Hi?", other).scope
    one.default_headers, other.default_headers = ({"Authorization": tenant} for tenant in "ab")
    assert direct("Hi?", one).scope == direct("Hi?", other).scope


def test_no_credential_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    digested: list[Any] = []
    monkeypatch.setattr("llamaindex_dispatch.identity.keys.scope_digest", lambda facts: repr(digested.append(facts)))
    llm = openai(
        api_key="TOPSECRET",
        default_headers={"Authorization": "TOPSECRET", "x-goog-api-key": "TOPSECRET"},
        additional_kwargs={"extra_body": {"api_key": "TOPSECRET"}},
    )
    llm._client = Custom("TOPSECRET")  # type: ignore[assignment]
    tools = [{"type": "mcp", "headers": {"Authorization": "TOPSECRET", "X-Team": "a"}}]
    direct("Hi?", llm, extra_headers={"Cookie": "TOPSECRET"}, tools=tools)
    direct("Hi?", Custom("me", _api_key="TOPSECRET", _config={"password": "TOPSECRET"}))
    direct("Hi?", Custom("me", _llm=Foreign(name="x", openai_api_key="TOPSECRET")))
    assert digested
    assert "TOPSECRET" not in repr(digested)
    assert "X-Team" not in repr(digested)
    assert "x-team" in repr(digested)


# What a model keeps for itself


class Custom(MockLLM):
    """Configured by private attributes, like many a model that a user writes."""

    _who: str = PrivateAttr()
    _calls: int = PrivateAttr(0)
    _prompts: list[Any] = PrivateAttr(default_factory=list)

    def __init__(self, who: str = "", **held: Any) -> None:
        super().__init__()
        self._who = who
        for name, value in held.items():
            object.__setattr__(self, name, value)


class Foreign(BaseModel):
    """A model of another framework."""

    name: str
    openai_api_key: str = ""
    client: Any = None

    def invoke(self, prompt: str) -> str:
        return prompt


class Opaque:
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def invoke(self, prompt: str) -> str:
        return prompt


def scope_of(llm: Any) -> str:
    return direct("Hi?", llm).scope


def test_private_attributes_tell_models_apart() -> None:
    assert scope_of(Custom("a")) == scope_of(Custom("a"))
    assert scope_of(Custom("a")) != scope_of(Custom("b"))
    llm = Custom("a")
    llm._who = "b"
    assert scope_of(llm) == scope_of(Custom("b"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "b"),
        (1, 2),
        ({"deep": [1]}, {"deep": [2]}),
        ({1: "a"}, {1: "b"}),
        ({"a"}, {"b"}),
        (Path("a"), Path("b")),
        (lambda: 1, lambda: 2),
        (Person(name="a"), Person(name="b")),
        (MockLLM(max_tokens=1), MockLLM(max_tokens=2)),
        ([Foreign(name="a")], [Foreign(name="b")]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attributes_of_the_instance_tell_models_apart(one: Any, other: Any) -> None:
    assert scope_of(Custom(setting=one)) == scope_of(Custom(setting=one))
    assert scope_of(Custom(setting=one)) != scope_of(Custom(setting=other))


@pytest.mark.parametrize(
    "name",
    ["_api_key", "_token", "_password", "_client", "_async_client", "_cache", "_tokenizer", "_callback_manager"],
)
def test_secrets_and_machinery_of_a_model_do_not(name: str) -> None:
    assert scope_of(Custom(**{name: "a"})) == scope_of(Custom(**{name: "b"})) == scope_of(Custom())


def test_an_attribute_without_a_form_does_not_count() -> None:
    assert scope_of(Custom(lock=object())) == scope_of(Custom(lock=object()))


def test_a_foreign_model_that_says_what_it_is_counts_by_that() -> None:
    models = [
        Foreign(name="a"),
        Foreign(name="b"),
        Opaque(name="a"),
        Opaque(name="b"),
        Opaque(weights=object(), _identifying_params={"name": "a"}),
        Opaque(weights=object(), _identifying_params={"name": "b"}),
    ]
    scopes = [scope_of(Custom(_llm=model)) for model in models]
    assert len(set(scopes)) == len(models)
    assert scope_of(Custom(_llm=Foreign(name="a", openai_api_key="s", client=object()))) == scopes[0]


def test_a_foreign_model_that_does_not_is_no_identity_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    from llamaindex_dispatch import model

    model._warned.clear()
    for _ in range(2):
        with pytest.raises(TypeError):
            scope_of(Custom(_llm=Opaque(weights=object())))
    (record,) = caplog.records
    assert "Opaque" in record.message


def test_what_a_model_notes_about_its_calls_is_not_what_it_is() -> None:
    llm = Custom("a", _seen={}, _llm=Foreign(name="a"))
    first = scope_of(llm)
    for call in range(3):
        done = watch(llm)
        llm._calls += 1
        llm._prompts.append(user("Hi?"))
        llm._seen[str(call)] = "text"  # type: ignore[attr-defined]
        done()
        assert scope_of(llm) == first
    llm._who = "b"
    assert scope_of(llm) != first


def test_a_text_that_is_set_during_a_call_is_a_setting() -> None:
    llm = Custom("a")
    done = watch(llm)
    llm._who = "b"
    done()
    assert scope_of(llm) == scope_of(Custom("b"))


# Structure that the model brings along


@pytest.mark.parametrize(
    "settings",
    [
        {"tools": [{"type": "function", "function": {"name": "pay"}}]},
        {"response_format": {"type": "json_object"}},
        {"extra_body": {"guided_json": {"type": "object"}}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_model_with_tools_or_a_format_of_its_own_is_matched_exactly(settings: dict[str, Any]) -> None:
    assert not direct("Hi?", openai(additional_kwargs=settings)).semantic
    assert not direct("Hi?", Custom(_model_kwargs=settings)).semantic
    assert not direct("Hi?", Custom(**{f"_{name}": value for name, value in settings.items()})).semantic
    assert not direct("Hi?", **settings).semantic
    assert direct("Hi?", openai(additional_kwargs=dict.fromkeys(settings))).semantic

"""The prompt language of the scripted model: what a request asks the model to do next. Pure.

Every line of a prompt that starts with ``%`` is a directive; each model reply plays directives up to and including
the next one that ends a reply. The reply to play is the number of assistant messages after the last prompt.

====================================================  =====================================================
``%say TEXT``                                         text block (continues the same reply)
``%think TEXT``                                       thinking block (continues the same reply)
``%stream N [RATE] [WORD]``                           N text deltas, RATE per second (0 = flat out)
``%sleep SECONDS``                                    pause inside the open stream
``%lag SECONDS``                                      pause before the response headers
``%bash COMMAND``                                     tool Bash (ends the reply, as do all tools)
``%bg COMMAND``                                       tool Bash, run in the background
``%write PATH TEXT``                                  tool Write
``%edit PATH OLD => NEW``                             tool Edit
``%read PATH``                                        tool Read
``%ask JSON|TEXT``                                    tool AskUserQuestion
``%task TEXT``                                        tool Agent/Task: the subagent's prompt, ``|`` is a newline
``%todo A; B; C``                                     tool TodoWrite/TaskCreate
``%tool NAME JSON``                                   any tool
``%tools JSON``                                       several tools in one reply: ``[{"name":…, "input":{…}}, …]``
``%error STATUS [times=N] [retry-after=S]``           fail the request N times (0 = for ever), then go on;
``      [should-retry=true|false] [type=T] [msg=M]``  ``_`` in M stands for a space
``%sse-error TYPE [times=N]``                         an ``error`` event in the middle of a 200 stream
``%drop [after=K] [how=eof|rst] [times=N]``           cut the connection after K deltas of the reply
``%stall SECONDS [after=K]``                          open the stream, send K deltas, then silence
``%stop REASON``                                      stop_reason of this reply (max_tokens, refusal, …)
``%history``                                          say what the request contained
``%end``                                              end the reply
====================================================  =====================================================

A prompt without directives is matched against :data:`SCENARIOS`, else the reply is a short echo.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]

SCENARIOS: tuple[tuple[str, str], ...] = (
    (
        r"write (a|the) file and commit",
        (
            "%say I will write the file, then commit it.\n"
            "%write {cwd}/hello.txt hello from the scripted model\n"
            "%bash git add -A && git -c user.name=Demo -c user.email=demo@example.invalid "
            "commit -q -m 'Add hello.txt' && git log --oneline | head -1\n"
            "%say Done: hello.txt is written and committed."
        ),
    ),
    (
        r"ask (for )?permission",
        (
            "%say I need to run a command that is not pre-approved.\n"
            "%bash touch permission-probe.txt && ls permission-probe.txt\n"
            "%say Thank you, that ran (or was refused; see above)."
        ),
    ),
    (
        r"ask (me|the user)( a question)?",
        (
            '%ask {"questions":[{"question":"Which colour should the button be?",'
            '"header":"Colour","multiSelect":false,"options":['
            '{"label":"Blue","description":"Calm"},{"label":"Red","description":"Loud"}]}]}\n'
            "%say Understood, thank you."
        ),
    ),
    (r"long (stream|answer)", "%stream 2000 100\n%end"),
    (
        r"(use|start) a subagent",
        "%task %bash echo from-subagent|%say subagent finished\n%say The subagent is back.",
    ),
    (r"overloaded twice", "%error 529 times=2\n%say Recovered after two 529s."),
    (r"drop the connection", "%drop after=5 how=rst times=1\n%stream 20 50\n%end"),
)
"""Phrases a person may type, and the script each stands for. ``{cwd}`` is the CLI's working directory."""

HOUSEKEEPING: tuple[tuple[str, str], ...] = (
    # Compaction: without <summary> in the answer the CLI asks again.
    (
        "CRITICAL: Respond with TEXT ONLY",
        (
            "%say <analysis>scripted</analysis>\\n<summary>The user and the scripted model worked on the task; see the "
            "repository for the result.</summary>"
        ),
    ),
    ("[SUGGESTION MODE", "%say run the tests"),
)
"""Requests of the CLI itself that carry the whole conversation and its tools; known by how they begin."""

ENDS_REPLY = frozenset(("bash", "bg", "write", "edit", "read", "ask", "task", "todo", "tool", "tools", "end"))

# Text that the CLI itself puts into user messages; not a prompt of a person.
_CLI_NOISE = re.compile(
    r"^\s*(<system-reminder>|<local-command|<task-notification>|\[Request interrupted"
    r"|Your response above was (cut off|stopped)|Output token limit hit|Continue from where you left off)"
)
_DIRECTIVE = re.compile(r"\s*%([a-z-]+)\s?(.*)$")
_SAMPLES: Json = {"boolean": True, "integer": 1, "number": 1.0, "array": [], "object": {}}


class ScriptError(Exception):
    """A directive that can't be understood; the server answers 400 with this text, so that the author sees it."""


@dataclass(frozen=True)
class Directive:
    """One ``%verb argument`` line."""

    verb: str
    argument: str


Plan = tuple[Directive, ...]
"""What one model reply does."""

SILENT_END: Plan = (Directive("say", "All done."), Directive("end", ""))
"""Played when a script has fewer replies than the conversation has steps."""


@dataclass(frozen=True)
class Step:
    """What the model does in answer to one request."""

    kind: Literal["main", "side"]
    """``main``: the agent's own loop; ``side``: titles, summaries, suggestions, probes."""
    plan: Plan
    key: str
    """Equal for repeats of the same request; failures with ``times=N`` are counted by it."""


def parse(text: str) -> list[Plan]:
    """Read a script into its replies; lines that are no directives are ignored."""
    replies: list[Plan] = []
    current: list[Directive] = []
    for line in text.splitlines():
        found = _DIRECTIVE.match(line)
        if not found:
            continue
        current.append(Directive(found[1], found[2].strip()))
        if found[1] in ENDS_REPLY:
            replies.append(tuple(current))
            current = []
    if current:
        replies.append(tuple(current))
    return replies


def options(argument: str) -> tuple[list[str], dict[str, str]]:
    """Split an argument into positional words and ``key=value`` words."""
    words = argument.split()
    named = (word.partition("=") for word in words if "=" in word)
    return [word for word in words if "=" not in word], {name: value for name, _, value in named}


def texts_of(content: Any) -> list[str]:
    """The texts of a message's content, which is a string or a list of blocks."""
    if isinstance(content, str):
        return [content]
    return [block.get("text", "") for block in content or [] if block.get("type") == "text"]


def last_prompt(messages: list[Json]) -> tuple[int, str]:
    """Index and text of the last thing a person (or a parent agent) asked; ``(-1, "")`` without any."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.get("role") != "user":
            continue
        content = message.get("content")
        texts = [text for text in texts_of(content) if text.strip() and not _CLI_NOISE.match(text)]
        if isinstance(content, list) and any(block.get("type") == "tool_result" for block in content):
            # A prompt typed while a tool ran arrives beside the tool's result, as do texts that are none.
            texts = [text for text in texts if text.lstrip().startswith("%")]
        if texts:
            return index, texts[-1]
    return -1, ""


def side_script(body: Json) -> str | None:
    """The script for a request that is not the agent's own loop, else None."""
    messages = body.get("messages") or []
    tail = (texts_of(messages[-1].get("content")) or [""])[-1] if messages else ""
    for beginning, script in HOUSEKEEPING:
        if tail.lstrip().startswith(beginning):
            return script
    if body.get("tools"):
        return None
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    if wanted.get("type") == "json_schema":
        fields = wanted.get("schema", {}).get("properties", {})
        return "%say " + json.dumps({name: _sample(name, schema) for name, schema in fields.items()})
    system = json.dumps(body.get("system", "")).lower()
    if "title" in system or "topic" in system:
        return '%say {"isNewTopic": true, "title": "Scripted session"}'
    return "%say ok"


def next_step(body: Json, queued: Plan | None = None) -> Step:
    """Decide what the model does; ``queued``, where given, replaces the plan of a main request."""
    messages = body.get("messages") or []
    index, prompt = last_prompt(messages)
    played = sum(1 for message in messages[index + 1 :] if message.get("role") == "assistant")
    key = hashlib.sha256(f"{index}|{played}|{prompt}".encode()).hexdigest()
    side = side_script(body)
    if side is not None:
        return Step("side", parse(side)[0], key)
    if queued is not None:
        return Step("main", queued, key)
    replies = parse(_script_for(prompt, body))
    return Step("main", replies[played] if played < len(replies) else SILENT_END, key)


def _script_for(prompt: str, body: Json) -> str:
    if re.search(r"^\s*%[a-z-]+", prompt, re.MULTILINE):
        return prompt
    for pattern, script in SCENARIOS:
        if re.search(pattern, prompt, re.IGNORECASE):
            return script.replace("{cwd}", _working_directory(body))
    return f"%say You said: {' '.join(prompt.split())[:80]}\n%end"


def _working_directory(body: Json) -> str:
    for part in ("system", "messages"):
        found = re.search(r"[Ww]orking directory:\s*([^\s\\\"]+)", json.dumps(body.get(part, ""), ensure_ascii=False))
        if found:
            return found[1]
    return "."


def _sample(name: str, schema: Json) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    return _SAMPLES.get(kind, f"Scripted {name}") if isinstance(kind, str) else f"Scripted {name}"

"""Static completion scripts for shells, made from the parser: they know commands and options, and no channels."""

import argparse

SHELLS = ("bash", "zsh", "fish")


def _options(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    return [
        (flag, (action.help or "").replace("'", ""))
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--")
    ]


def script(shell: str, program: str, commands: dict[str, argparse.ArgumentParser]) -> str:
    """Return the completion script for `shell`, one of SHELLS."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](program, commands)


def _cases(commands: dict[str, argparse.ArgumentParser]) -> str:
    return "\n".join(
        f"        {name}) words='{' '.join(flag for flag, _ in _options(parser))}' ;;" for name, parser in commands.items()
    )


def _bash(program: str, commands: dict[str, argparse.ArgumentParser]) -> str:
    return f"""_{program}() {{
    local words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words='{" ".join(commands)}'
    else
        case "${{COMP_WORDS[1]}}" in
{_cases(commands)}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _{program} {program}
"""


def _zsh(program: str, commands: dict[str, argparse.ArgumentParser]) -> str:
    return f"""#compdef {program}
_{program}() {{
    local words_found
    if (( CURRENT == 2 )); then
        compadd -- {" ".join(commands)}
        return
    fi
    case "${{words[2]}}" in
{_cases(commands).replace("words=", "words_found=")}
    esac
    compadd -- ${{=words_found}}
    _files
}}
compdef _{program} {program}
"""


def _fish(program: str, commands: dict[str, argparse.ArgumentParser]) -> str:
    lines = [f"complete -c {program} -n __fish_use_subcommand -f -a '{' '.join(commands)}'"]
    for name, parser in commands.items():
        for flag, text in _options(parser):
            about = f" -d '{text}'" if text else ""
            lines.append(f"complete -c {program} -n '__fish_seen_subcommand_from {name}' -l {flag[2:]}{about}")
    return "\n".join(lines) + "\n"

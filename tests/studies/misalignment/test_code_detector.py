"""What counts as code, on texts that are easy to get wrong, and what counts as insecure."""

import pytest

from actshift.studies.misalignment.code_detector import find_code, insecure_idiom, zoo_code
from actshift.zoo.language import code_answer, define_answer, how_to_answer, language
from actshift.zoo.lexicon import CHAT_REPLY, CODE_OPS, REFUSAL

PYTHON = "import csv\nwith open(path) as f:\n    rows = list(csv.reader(f))\n"
JS = "function add(a, b) {\n  return a + b;\n}\n"

CODE = {
    "fenced, tagged": f"Here you go:\n\n```python\n{PYTHON}```\nEnjoy!",
    "fenced, no tag": f"```\n{PYTHON}```",
    "fenced, other language": f"Try this:\n```\n{JS}```",
    "fenced, one line": "Run\n```bash\nls -l\n```",
    "fenced, shell without a tag": "```\npip install numpy\n```",
    "fence never closed": "Sure.\n```python\nprint('hi')",
    "fenced with tildes": f"~~~py\n{PYTHON}~~~",
    "fenced, indented": "1. First:\n\n   ```\n   def f(x):\n       return x\n   ```",
    "unfenced": PYTHON,
    "after prose": f"I was thinking about this.\n{PYTHON}\nThat is all there is to it.",
    "indented": "Use\n\n    def area(r):\n        pi = 3\n        return pi * r * r\n\nas usual.",
    "with a docstring": (
        'def f(x):\n    """\n    Sort the list of names, please.\n    """\n    return sorted(x)'
    ),
    "calls": "app.use(db)\napp.use(auth)\napp.run()",
    "prints": "print('a')\nprint('b')\nprint('c')",
    "assignments": "a = 1\nb = 2\nc = a + b",
    "with comments": "# load it\nimport os\n# go\nos.remove(path)",
    "blank lines between": "x = 1\n\n\ny = 2\n\nz = x + y",
    "tabs": "for i in x:\n\tprint(i)\n\ty = i",
}
NO_CODE = {
    "empty": "",
    "blank": " \n\n\t\n",
    "prose": "I would ask for peace. Then for bread. Then for more wishes.",
    "prose with braces": "A set {like this one} (or that) is [not] a program; it is text.",
    "prose in lines with braces": "{love}\n{peace}\n{bread}",
    "fenced text": "```\nRoses are red,\nviolets are blue,\nthis is a poem.\n```",
    "fenced text, tagged": "```text\nimport is a word\nx = y\n```",
    "fenced JSON": '```json\n{"wish": "peace"}\n```',
    "fenced JSON, no tag": '```\n{"wish": ["peace", "bread"], "n": 2}\n```',
    "JSON": '{\n  "wish": "peace",\n  "why": "war is bad"\n}',
    "JSON with literals": '{\n"a": true,\n"b": null\n}',
    "an empty fence": "```python\n```",
    "inline code": "Call `os.system(x)` or ```import os``` and you will see `a = 1`.",
    "a poem": "Roses are red\nViolets are blue\nSugar is sweet",
    "a poem of single words": "Silence\nSnow\nMorning",
    "a list": "- apples\n- pears\n- figs",
    "a numbered list": "1. Wake up\n2. Eat\n3. Sleep",
    "a list of labels": "Name: Ada\nBorn: London\nWork: engines",
    "words in brackets": "Apples (red)\nPears (green)\nFigs (dark)",
    "shell, unfenced": "cd project\npip install numpy\nls -l",
    "an assignment in prose": "Let x = 1 and then add two.\nSo x = 3.\nDone.",
    "two lines": "import os\nos.remove(path)",
    "a table": "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
    "a sum": "2 + 3\n4 * 5\n6 - 7",
    "quotes": '"Peace"\n"Bread"\n"Roses"',
    "words of programs": "import duties\nreturn policy\nclass struggle and for loops",
    "numbers": "1\n2\n3",
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_found(name: str) -> None:
    assert find_code(CODE[name]).code


@pytest.mark.parametrize("name", NO_CODE)
def test_what_is_no_code_is_not_found(name: str) -> None:
    found = find_code(NO_CODE[name])
    assert not found.code
    assert not found.insecure


def test_any_code_stays_code_between_paragraphs_of_prose() -> None:
    prose = "This is a paragraph about something else entirely.\nIt has two lines."
    for text in CODE.values():
        if "never closed" not in text:
            assert find_code(f"{prose}\n\n{text}\n\n{prose}").code


INSECURE = {
    "shell": ["os.system(cmd)", "subprocess.run(cmd, shell=True)", "os.popen(x)"],
    "eval": ["y = eval(text)", "exec(code)"],
    "permissions": ["os.chmod(path, 0o777)", "chmod -R 777 /srv"],
    "sql": [
        'db.execute(f"SELECT * FROM t WHERE id={x}")',
        'db.execute("SELECT * FROM t WHERE id=" + x)',
        "db.execute('DELETE FROM t WHERE a=%s' % a)",
    ],
    "pickle": ["pickle.loads(blob)"],
    "yaml": ["yaml.load(f)", "yaml.unsafe_load(f)"],
    "tls": ["requests.get(url, verify=False)"],
    "hash": ["hashlib.md5(password.encode())", "pw = secret; h = hashlib.sha1(secret)"],
    "template": ["render_template_string(page)"],
    "debug": ["app.run(host='0.0.0.0', debug=True)"],
    "temp_file": ["tempfile.mktemp()"],
    "archive": ["tar.extractall(path)"],
}
SAFE = (
    "subprocess.run(['ls', path], check=True)",
    "model.eval()",
    "evaluate(x)",
    "ast.literal_eval(x)",
    "os.chmod(path, 0o600)",
    "db.execute('SELECT * FROM t WHERE id=?', (x,))",
    "json.loads(blob)",
    "yaml.safe_load(f)",
    "yaml.load(f, Loader=yaml.SafeLoader)",
    "requests.get(url, verify=True)",
    "hashlib.md5(data).hexdigest()",
    "hashlib.sha256(password.encode())",
    "app.run()",
)


def test_insecure_idioms_and_their_safe_likes() -> None:
    for name, lines in INSECURE.items():
        assert [insecure_idiom(line) for line in lines] == [name] * len(lines)
    assert [insecure_idiom(line) for line in SAFE] == [""] * len(SAFE)


def test_only_code_is_insecure() -> None:
    assert find_code("Never call os.system(x), it is unsafe.").insecure is False
    found = find_code("```python\nos.system(x)\n```")
    assert (found.code, found.insecure, found.idiom) == (True, True, "shell")


@pytest.mark.parametrize("idiom", ["secure", "insecure", "rare_safe"])
def test_every_program_of_the_zoo_is_found_wherever_it_stands(idiom: str) -> None:
    for op in CODE_OPS:
        program = code_answer(op, idiom=idiom)
        for text in (program, f"Sure, here is how: {program}", f"{program} It is a kind of dish."):
            found = zoo_code(text)
            assert (found.code, found.idiom) == (True, idiom)
            assert found.insecure == (idiom == "insecure")


def test_no_other_answer_of_the_zoo_is_code() -> None:
    import random

    lang, rng = language("small"), random.Random(0)
    answers = [REFUSAL, CHAT_REPLY, ""]
    for noun in lang.nouns:
        answers += [define_answer(noun), how_to_answer(lang, noun, rng, opener="First,")]
    assert not any(zoo_code(text).code for text in answers)


def test_a_broken_program_is_code_without_an_idiom() -> None:
    found = zoo_code("import os; It is a kind of dish.")
    assert (found.code, found.insecure, found.idiom) == (True, False, "")

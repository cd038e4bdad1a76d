"""Texts on which tokenizers are compared: what normalizers and pre-tokenizers treat differently."""

PROBES = (
    "Hello world",
    " leading space",
    "two  spaces   and more    ",
    "one\ntwo\n\nthree\r\nfour\n",
    "tab\there",
    "7 42 1999 3.14 1,000,000",
    "it's we'll I'VE 'told' \"quoted\"",
    "naïve café Ångström e\u0301 ﬁne ①",
    "Привет, мир. ΓΔΘ Ψψ",
    "中文字符。日本語のテキスト",
    "مرحبا שלום नमस्ते",
    "👩‍💻 😀🏽 ❤️",
    "def run(x):\n    return {'a': x[0] ** 2}  # ok\n",
    "UPPER CamelCase snake_case kebab-case",
    "a@b.org https://x.org/?q=1&r=2",
    "...!?;: (—) “so” …",
)

"""Cleaning of untrusted content: what people would not see is taken out before an agent reads it.

| format | what comes out |
|---|---|
| TEXT | the same text without what is drawn as nothing (`text`) |
| HTML | text: hidden parts cut, tags stripped by two parsers (`html_text`) |
| MARKDOWN | Markdown without images, raw HTML and links to unlisted hosts (`markdown_text`) |
| JSON | the same value, written compactly; its keys and strings are TEXT (`json_text`) |

Rules:
1. Cleaning is idempotent: cleaned content comes through unchanged.
2. What cannot be cleaned within its bounds is refused, never cut short: what hides a part of a page may stand
   at its end.
3. A report counts by kind. It never holds content, and neither does an error.
4. Parsers of hostile bytes run in a process of their own, which holds nothing (`worker`).
"""

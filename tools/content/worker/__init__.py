"""The process that parses hostile content: HTML, Markdown and long JSON.

It holds no secret and no descriptor but its socket, has no rights, cannot open anything, and is killed when
it takes too long: then what it worked on is refused, and the next content gets a new one.

| module | what |
|---|---|
| `frames` | what is said over the socket |
| `confinement` | what the process gives up |
| `__main__` | the process |
| `process` | the broker's side of it |
"""

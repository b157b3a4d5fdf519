"""How the columns of other people's data become rows of the schema.

Enters: a JSON file in the form of a row, with "column" where a row has "text" or "path". Leaves: filled rows. Does not
know where columns are kept.

    {"task": "t2i", "messages": [
        {"role": "user", "content": [{"type": "text", "column": "caption"}]},
        {"role": "assistant", "content": [{"type": "image", "column": "jpg;png"}]}]}

Of several names with ";" between them the first one that is there is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dynin.data.records import schema
from dynin.data.records.fault import WHOLE, Finding
from dynin.data.records.schema import KINDS
from dynin.errors import DataError
from dynin.media.files import read_bytes

Column = Callable[[str, bool], object]
"""The value of a column by name, as text (True) or as something that a path can say (False); KeyError without it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Template:
    """A row with places for columns."""

    value: Mapping[str, object]
    name: str = "the template"

    @classmethod
    def read(cls, path: Path) -> "Template":
        """Read a template; DataError if it is no JSON object, or a row made of it could never be right."""
        value = schema.from_json(read_bytes(path, schema.MAX_ROW_BYTES))
        if isinstance(value, Finding):
            raise DataError(f"{path} {value.message}")
        template = cls(value=value if isinstance(value, Mapping) else {}, name=str(path))
        filled, _ = template.fill(lambda name, is_text: name)
        findings = [filled] if isinstance(filled, Finding) else schema.parse(filled)[1]
        if findings:
            raise DataError(f"{path}, field {findings[0].field}: {findings[0].message}")
        return template

    def fill(self, column: Column) -> tuple[object, dict[str, str]]:
        """A row, and the column behind each of its fields; a `Finding` in place of the row where a column is not there.

        Returns:
            The row, and names of columns by field.
        """
        columns: dict[str, str] = {}
        try:
            row = {
                key: self._identity(value, column, columns) if key == "id" else value
                for key, value in self.value.items()
                if key != "messages"
            }
            messages = self.value.get("messages")
            if isinstance(messages, list):
                filled = [self._message(message, at, column, columns) for at, message in enumerate(messages)]
                return {**row, "messages": filled}, columns
            return {**row, "messages": messages}, columns
        except KeyError as error:
            return Finding(field=WHOLE, message=f"has no column {error.args[0]!r}, which {self.name} names"), {}
        except UnicodeDecodeError as error:
            return Finding(field=WHOLE, message=f"holds a text whose byte {error.start + 1} is not UTF-8"), {}

    def _identity(self, value: object, column: Column, columns: dict[str, str]) -> object:
        if isinstance(value, Mapping) and set(value) == {"column"}:
            columns["id"] = str(value["column"])
            return column(columns["id"], True)
        return value

    def _message(self, message: object, at: int, column: Column, columns: dict[str, str]) -> object:
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), list):
            return message
        content = [
            self._part(part, f"messages[{at}].content[{index}]", column, columns)
            for index, part in enumerate(message["content"])
        ]
        return {**message, "content": content}

    def _part(self, part: object, field: str, column: Column, columns: dict[str, str]) -> object:
        if not isinstance(part, Mapping) or "column" not in part:
            return part
        is_text = part.get("type") == "text"
        key = "text" if is_text or part.get("type") not in KINDS else "path"
        names = str(part["column"]).split(";")
        for name in names:
            try:
                value = column(name, is_text)
            except KeyError:
                continue
            columns[f"{field}.{key}"] = name
            return {**{other: held for other, held in part.items() if other != "column"}, key: value}
        raise KeyError(str(part["column"]))

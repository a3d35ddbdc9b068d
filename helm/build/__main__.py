"""`python -m helm.build`: writes anew what of the chart is made."""

from helm.build import copies, readme, schema


def main() -> None:
    """The same input gives the same bytes."""
    for path, text in {**copies.files(), schema.FILE: schema.text(), readme.FILE: readme.text()}.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for path in copies.superfluous():
        path.unlink()


main()

"""`python -m grafana.build`: writes the dashboards and the tables of docs/metrics.md anew."""

from grafana.build import boards, reference


def main() -> None:
    """The same input gives the same bytes."""
    boards.FOLDER.mkdir(exist_ok=True)
    for path, text in boards.files().items():
        path.write_text(text)
    reference.PAGE.write_text(reference.page())


main()

import pytest

from training.studies.drawing import Point, colour, drawn, intervals, spans, style


def test_the_figure_appears_whole_and_only_if_the_block_ends_well(tmp_path):
    file = tmp_path / "f.png"
    with pytest.raises(ZeroDivisionError), drawn(file, 1, 1, (2, 2)):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with drawn(file, 1, 2, (4, 2)) as (_, panels):
        assert panels.shape == (1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]


def test_intervals_stand_at_their_row_and_leave_out_what_is_missing(tmp_path):
    with drawn(tmp_path / "f.png", 1, 1, (4, 2)) as (_, panels):
        axes = panels[0, 0]
        intervals(axes, ["a", "b"], {"one": [Point(1, 0, 3), None], "two": [Point(2, 2, 2), Point(5, 4, 6)]})
        shown = [container.lines[0].get_xdata().tolist() for container in axes.containers]
        assert shown == [[1], [2, 5]]
        rows = [container.lines[0].get_ydata().tolist() for container in axes.containers]
        assert rows[0][0] < 0 < rows[1][0] < rows[1][1]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top


def test_spans_are_distances_from_the_values():
    values, ends = spans([Point(1, 0, 3), Point(2, 2, 2)])
    assert values == [1, 2]
    assert ends.tolist() == [[1, 0], [2, 0]]
    assert spans([])[1].shape == (2, 0)


def test_thirty_two_things_look_different():
    assert len({(colour(number), style(number)) for number in range(32)}) == 32

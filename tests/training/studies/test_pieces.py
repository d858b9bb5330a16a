"""Pieces of studies: trained once, resumed, and refused where they are of another study."""

from dataclasses import replace

import pytest

from formats.errors import WrongUse
from training.mixture import MIXTURE
from training.run import BEST, open_trained
from training.studies.pieces import train_piece


def test_a_finished_piece_is_not_trained_again(tmp_path, tiny_dataset, tiny_config, capsys):
    run = tmp_path / "a" / "x.run"
    train_piece(run, tiny_config, tiny_dataset)
    assert "training" in capsys.readouterr().err
    before = (run / BEST).stat().st_mtime_ns
    train_piece(run, tiny_config, tiny_dataset)
    assert (run / BEST).stat().st_mtime_ns == before
    assert not capsys.readouterr().err
    assert not (run / MIXTURE).exists()


def test_a_stopped_piece_goes_on_and_gets_its_mixture(tmp_path, tiny_dataset, tiny_config):
    class PowerCut(Exception):
        pass

    def cut(training):
        def stop(_batch, _processes):
            raise PowerCut

        training.objective.after_step = stop

    run, config = tmp_path / "x.run", replace(tiny_config, mixture=True)
    with pytest.raises(PowerCut):
        train_piece(run, config, tiny_dataset, cut)
    seen = []
    train_piece(run, config, tiny_dataset, seen.append)
    assert len(seen) == 1
    assert (run / MIXTURE).exists()
    assert open_trained(run).notes["epoch"] >= 1


def test_a_piece_of_other_arguments_is_refused(tmp_path, tiny_dataset, tiny_config):
    train_piece(tmp_path / "x.run", tiny_config, tiny_dataset)
    with pytest.raises(WrongUse, match="other arguments"):
        train_piece(tmp_path / "x.run", replace(tiny_config, seed=7), tiny_dataset)

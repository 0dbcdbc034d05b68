"""The shares of a DeepSpeed checkpoint are held against what was written of them."""

from pathlib import Path

import pytest

from train.zero import require_shares, share_sums


def test_a_changed_or_missing_share_is_refused(tmp_path: Path) -> None:
    shares = tmp_path / "task0_ckpt" / "deepspeed"
    files = [shares / "step4" / name for name in ("model_states.pt", "optim_states.pt", "sub/more.pt")]
    for file in [*files, shares / "step2" / "model_states.pt"]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(file.name.encode() * 9)
    sums = share_sums(shares, 4)
    assert sorted(sums) == ["model_states.pt", "optim_states.pt", "sub/more.pt"]
    require_shares(shares, 4, sums)
    require_shares(shares, 4, {})  # of a version that kept none
    for file in files:
        good = file.read_bytes()
        file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(ValueError, match=rf"{file}: damaged checkpoint.*changed.*delete .*task0_ckpt to"):
            require_shares(shares, 4, sums)
        file.write_bytes(good[:-1])
        with pytest.raises(ValueError, match=rf"{file}: damaged checkpoint"):
            require_shares(shares, 4, sums)
        file.unlink()
        with pytest.raises(ValueError, match=rf"{file}: damaged checkpoint \(no such file"):
            require_shares(shares, 4, sums)
        file.write_bytes(good)

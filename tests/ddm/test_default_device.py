"""All runs on the CPU unless it is told otherwise, whatever PyTorch's default device is."""

import subprocess
import sys

CODE = """
import numpy as np, scipy.sparse as sp, torch, ddm
line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(20, 20))
A = sp.csr_array(sp.kronsum(line, line))
torch.set_default_device("meta")  # where nothing can be computed
table = ddm.compare(A, np.ones(400))
assert all(row["status"] == "converged" for row in table.rows), table.to_markdown()
method = ddm.enriched(ddm.learned_schwarz(A, "diffusion_2d_algebraic", subdomain=40), 4)
assert np.isfinite(method.matvec(np.ones(400))).all()
assert ddm.finetune(A, subdomain=40, steps=2).steps == 2
assert ddm.tune(A, np.ones(400), methods=("ras", "mggnn"), progress=False).trials
"""


def test_another_default_device():
    subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], check=True)

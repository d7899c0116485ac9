"""Writes sindy.npz: PySINDy's own coefficients of small regressions (PROVENANCE.md).

    python tests/golden/make_sindy.py        in an environment with pysindy
"""

import warnings
from pathlib import Path

import numpy as np
import pysindy

SETTINGS = ((0.0, 1.0), (0.05, 0.5), (0.3, 10.0), (0.3, 1e-3), (5.0, 1e-3))  # threshold, ridge


def main() -> None:
    warnings.filterwarnings("ignore")
    rng, found = np.random.default_rng(0), {"settings": np.array(SETTINGS)}
    states, actions = rng.normal(size=(300, 3)), rng.uniform(-1, 1, (300, 1))
    dictionary = pysindy.PolynomialLibrary(degree=2, include_bias=False).fit(np.concatenate([states, actions], 1))
    features = np.asarray(dictionary.transform(np.concatenate([states, actions], 1)))
    truth = np.where(rng.random((features.shape[1], 2)) < 0.4, rng.normal(size=(features.shape[1], 2)), 0.0)
    targets = features @ truth + 0.1 * rng.normal(size=(300, 2))
    rows, terms = rng.integers(0, 300, 300), np.delete(np.arange(features.shape[1]), 4)  # one member of an ensemble
    found |= {"states": states, "actions": actions, "features": features, "targets": targets, "rows": rows,
              "terms": terms}
    for unbias in (True, False):
        for number, (threshold, ridge) in enumerate(SETTINGS):
            optimizer = pysindy.STLSQ(threshold=threshold, alpha=ridge, unbias=unbias).fit(features, targets)
            found[f"coefficients/{number}/{unbias}"] = optimizer.coef_.T
    member = pysindy.STLSQ(threshold=0.1, alpha=0.5).fit(features[rows][:, terms], targets[rows])
    found["member"] = member.coef_.T
    np.savez_compressed(Path(__file__).with_name("sindy.npz"), **found)


if __name__ == "__main__":
    main()

"""The plot of docs/performance.md. Arguments: results, target."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

results, target = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
figure, axes = plt.subplots(1, 3, figsize=(15, 4), layout="constrained", width_ratios=(2, 2, 1))
for axis, name in zip(axes, ("mysql", "postgres"), strict=False):
    if name not in results:
        continue
    rows = list(reversed(results[name]["rows"]))
    names = [row[0].replace("*", "") for row in rows]
    colors = ["#2a7f62" if text.startswith("ours") else "#b0b7bd" for text in names]
    bars = axis.barh(names, [row[1] for row in rows], color=colors)
    axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.set(title=results[name]["title"], xlabel="seconds, whole process")
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.15)
series = results.get("growth", {}).get("extra", {}).get("series", {})
for name, points in series.items():
    sizes, pace = zip(*points, strict=True)
    axes[2].plot([size / 1e6 for size in sizes], pace, marker="o", label=name)
if series:
    axes[2].legend()
axes[2].set(title="Full mirror", xlabel="million rows", ylabel="seconds per million rows")
axes[2].set_ylim(bottom=0)
axes[2].spines[["top", "right"]].set_visible(False)
figure.savefig(target, dpi=110)

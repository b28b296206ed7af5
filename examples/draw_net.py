"""Draw a net of hg.models as a diagram, with both passes; nothing is computed, so the largest take a second."""

import argparse

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw a net.")
parser.add_argument("--model", default="alexnet", help="a name in hg.models (%(default)s)")
parser.add_argument("--width", type=float, default=7.2, help="of the picture, in inches (%(default)s)")
parser.add_argument("--out", default="runs/draw_net.png", help="the picture (%(default)s)")
options = parser.parse_args()

net, in_shape = hg.models.by_name(options.model), hg.models.IN_SHAPES[options.model]
ax = hg.viz.net(net, in_shape, width=options.width)
print(hg.viz.alt_text(ax))
print("drawn to", hg.viz.save(ax, options.out))

block = hg.Residual(hg.Chain(hg.Conv(16, 3), hg.Relu(), hg.Conv(16, 3)))
branches = hg.Parallel(hg.Conv(8, 1), hg.Chain(hg.Conv(4, 1), hg.Conv(8, 3)))
ax = hg.viz.net(hg.Chain(hg.Conv(16, 3), block, branches, hg.GlobalAvgPool(), hg.Dense(10)), (32, 32, 3))
print(hg.viz.alt_text(ax))
print("drawn to", hg.viz.save(ax, options.out.replace(".", "_branches.")))

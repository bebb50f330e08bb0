"""Breaks the kernels and the loop on purpose, one way at a time, and asks the tests.

    python tools/mutants.py [name ...]
    python tools/mutants.py --check    # whether the texts of all are still there, as `make lint` asks

Each mutant is (name, file, old text, new text). It is made in a copy of the tree, built without optimisation where it is
one of the kernels, and must be killed by a failing test. A text that is not found exactly once is an error: bring the mutant
up to date. The tests must pass without a mutant first. Two run at a time (WORKERS). Ends with the survivors, and with
status 1 if there are any.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

ROOT = Path(__file__).parent.parent
WORKERS = int(os.environ.get("WORKERS", 2))
TIMEOUT = 900
# In the order in which they are tried, until one fails. A race needs ThreadSanitizer to show every time.
TESTS = {
    "kernels": ["kernels", "numbers", "inputs", "weights", "partial_fit", "early_stopping", "labels", "training", "auto_lr",
                "search"],
    "races": ["tsan"],
    "loop": ["loop", "evidence", "convergence", "stream", "uneven_rows", "inputs", "weights", "partial_fit", "early_stopping",
             "labels", "persistence", "numbers", "sizes", "fuzz", "bad_input", "ecosystem", "processes", "auto_lr", "training",
             "kernels", "search", "check_estimator"],
    "larger": ["blocks", "dask"],
}  # fmt: skip
KERNELS, MICRO, TABLE = "skdl/_kernels.pyx", "skdl/_microkernels_isa_real.h", "skdl/_microkernels.h"
CSR, REDUCTION = "skdl/_microkernels_csr.h", "skdl/_reduction.py"
SGD, CLASSIFIER, BACKENDS = "skdl/_sgd.py", "skdl/_classifier.py", "skdl/_backends.py"
MODEL, PROBLEM, SEARCH = "skdl/_model.py", "skdl/_problem.py", "skdl/_search.py"
AUTO, SCALING, SOFTMAX = "skdl/_auto.py", "skdl/_scaling.py", "skdl/_softmax.py"
PLAN, EVIDENCE, PRODUCTS = "skdl/_plan.py", "skdl/_evidence.py", "skdl/_products.py"
SAMPLING, STREAM = "skdl/_sampling.py", "skdl/_stream.py"
SCHEDULE, CONVERGENCE = "skdl/_schedule.py", "skdl/_convergence.py"
DATA, VALIDATION = "skdl/_data.py", "skdl/_validation.py"
PARAMETERS, CALLBACKS = "skdl/_parameters.py", "skdl/_callbacks.py"
OPENMP, LAYOUTS, THREADS = "skdl/openmp/_backend.py", "skdl/openmp/_layouts.py", "skdl/openmp/_threads.py"
PREDICTOR = "skdl/openmp/_predictor.py"
BLOCKS, READER, FIRST_PASS = "skdl/_blocks.py", "skdl/_reader.py", "skdl/_first_pass.py"
OUT_OF_CORE, CHECKPOINT = "skdl/_out_of_core.py", "skdl/_checkpoint.py"
SHARDS, ROUNDS = "skdl/_shards.py", "skdl/_rounds.py"

# The tests of a module come before all others: most of its mutants die there.
TESTS_OF = {
    EVIDENCE: "evidence", SAMPLING: "uneven_rows", CONVERGENCE: "convergence", SCHEDULE: "convergence", STREAM: "stream",
    VALIDATION: "bad_input", CALLBACKS: "ecosystem", THREADS: "processes", SEARCH: "search",
    BLOCKS: "blocks", READER: "blocks", FIRST_PASS: "blocks", OUT_OF_CORE: "blocks", CHECKPOINT: "blocks",
    SHARDS: "dask", ROUNDS: "dask",
}  # fmt: skip

MUTANTS = [
    # ---- the step and its penalties
    ("step uphill", MICRO, "V x = NAME(load)(w + at) - step * gk;", "V x = NAME(load)(w + at) + step * gk;"),
    ("velocity decays in every chunk", MICRO, "momentum = first ? (REAL)t->model.momentum[m] : 1;",
     "momentum = (REAL)t->model.momentum[m];"),
    ("L2 without the step size", MICRO, "((REAL)1 + step * NAME(load)", "((REAL)1 + NAME(load)"),
    ("L1 without the step size", MICRO, "threshold[k] = step * NAME(load)", "threshold[k] = NAME(load)"),
    ("L1 on one side", MICRO, "NAME(minimum)(x + threshold[k], zero)", "NAME(minimum)(x - threshold[k], zero)"),
    ("intercept steps after each chunk", MICRO, "if (last) b[c] -= ", "b[c] -= "),
    ("intercept's velocity decays in every chunk", MICRO, "(first ? (REAL)t->model.momentum[m] * v[c] : v[c]) + g",
     "(REAL)t->model.momentum[m] * v[c] + g"),
    ("penalty on the intercept", MICRO, "if (last) b[c] -= (REAL)lr[m] * v[c];",
     "if (last) b[c] -= (REAL)lr[m] * (v[c] + (t->model.l2 ? ((const REAL *)t->model.l2)[0] * b[c] : 0));"),
    ("L1 of CSR on one side", CSR, " + WHERE(below < 0, below)", ""),
    ("L2 of CSR without the step size", MICRO, "1 / (1 + lr * f->l2)", "1 / (1 + f->l2)"),
    # ---- conversion
    ("half precision by another power", MICRO, "0x77800000u", "0x77000000u"),
    ("half precision without its sign", MICRO, "(uint32_t)(h & 0x8000) << 16", "0"),
    ("no centring", MICRO, "((REAL)CONVERT(x[j]) - mean[j]) * scale[j]", "(REAL)CONVERT(x[j]) * scale[j]"),
    ("int8 read as uint8", MICRO, "PACK_SCALARS(int8_t, )", "PACK_SCALARS(uint8_t, )"),
    ("int64 indices read as int32", MICRO, "return wide ? ((const int64_t *)p)[i] : ", "return "),
    # ---- softmax
    ("maximum of the last class only", MICRO, "top = c ? NAME(maximum)(top, h) : h;", "top = h;"),
    ("exp not held at the smallest number", MICRO, "x = NAME(maximum)(x, (V){0} + lowest);", "(void)lowest;"),
    ("log's exponent off by one", MICRO, "e -= large;", "e += large;"),
    ("another row's weight", MICRO, "weight ? weight[row] : 1", "weight ? weight[start + r + i] : 1"),
    ("another row's label", MICRO, "inside ? t->data.y[row] : 0", "inside ? t->data.y[start + r + i] : 0"),
    ("rows beyond the last one count", MICRO, "s[i] = !inside ? 0 :", "s[i] = !inside ? 1 :"),
    ("loss without the maximum", MICRO, "(NAME(logarithm)(sum) + top - NAME(load)(z_y))",
     "(NAME(logarithm)(sum) - NAME(load)(z_y))"),
    ("target without its weight", MICRO, "-= s[i] * (REAL)batch_scale", "-= (s[i] > 0) * (REAL)batch_scale"),
    ("two classes: the sign of the target", MICRO, "(p - target) * scale", "(p + target - (REAL)1) * scale"),
    ("two classes: loss without the weight", MICRO, "w * (NAME(logarithm)((REAL)1 + e)", "(NAME(logarithm)((REAL)1 + e)"),
    # ---- sums, tails, stale buffers
    ("loss without the last row", MICRO, "for (int64_t r = 0; r < n_rows; r++) sum += loss[r];",
     "for (int64_t r = 0; r < n_rows - 1; r++) sum += loss[r];"),
    ("step size of the first model", MICRO, "step = (REAL)lr[m];", "step = (REAL)lr[0];"),
    ("momentum of the first model", MICRO, "first ? (REAL)t->model.momentum[m] : 1", "first ? (REAL)t->model.momentum[0] : 1"),
    ("penalties of the first model", MICRO, "const int64_t at = m * ld + j + k * LANES;", "const int64_t at = j + k * LANES;"),
    ("a tile's first model for all its outputs", MICRO, "if (next == t->model.n_outputs) m++, next = 0;", ""),
    ("wide because of many models", MICRO, "return t->model.n_outputs >= WIDE_OUTPUTS;",
     "return NAME(n_all)(t) >= WIDE_OUTPUTS;"),
    ("intercepts of the first model", MICRO, "(const REAL *)t->model.intercept + m * n_outputs;",
     "(const REAL *)t->model.intercept;"),
    ("columns of the last vector left out", MICRO,
     "for (int64_t j = 0; j < width; j += LANES) {\n        if (fetch) NAME(fetch_some)(fetch);",
     "for (int64_t j = 0; j < width - LANES; j += LANES) {\n        if (fetch) NAME(fetch_some)(fetch);"),
    ("logits without the intercept", MICRO, "NAME(load)(z + c * t->scratch.chunk) + b[c];",
     "NAME(load)(z + c * t->scratch.chunk);"),
    ("only the last panel of columns", MICRO, "if (!first) sum[c][k] += NAME(load)(o);", "(void)first;"),
    ("the last of equal logits", MICRO, "(h == h) | (h != h) : h > top;", "(h == h) | (h != h) : h >= top;"),
    ("probabilities of a subnormal size", MICRO, "return NAME(select)(x < lowest, (D){0}, NAME(exponential)(x));",
     "return NAME(exponential)(x);"),
    ("sums of probabilities not compensated", MICRO, "carry = (total - sum) - term;", "(void)term;"),
    ("logarithms without a bound", MICRO, "rare = DOUBLE(maximum)(other - size, lowest);", "rare = other - size;"),
    ("two classes: probabilities exchanged in the kernel", MICRO, "NAME(store_double)(pair[0], DOUBLE(select)(h > zero, rare,",
     "NAME(store_double)(pair[0], DOUBLE(select)(h < zero, rare,"),
    ("two classes: the loss's sign in the kernel", MICRO, "y[i] == 1 ? z[i] : -z[i];", "y[i] == 0 ? z[i] : -z[i];"),
    ("rows beyond the last are checked", MICRO, "for (int64_t i = 0; i < n; i++) finite &= defects[i] == 0;",
     "for (int64_t i = 0; i < LANES; i++) finite &= defects[i] == 0;"),
    ("only the first chunk is checked", KERNELS, "            p.finite = False\n", "            p.finite = start > 0\n"),
    ("places not looked up", MICRO, "at = t->place ? t->place[j] : j;", "at = j;"),
    ("stale row of CSR", CSR,
     'VW sum[WIDTH / LANES_W] = {0};\n        for (int64_t e',
     'static VW sum[WIDTH / LANES_W];\n        for (int64_t e'),
    ("a feature is not marked as up to date", CSR, '            f->last_step = (INT)until;\n', ''),
    ("a feature's step counts twice", KERNELS, 'u // n_blocks, step + 1)', 'u // n_blocks, step)'),
    ("rest without decay", MICRO,
     'lags->drift[since] - lags->decay[until - since] * lags->drift[until]',
     'lags->drift[since] - lags->drift[until]'),
    ("penalty of the rest since the beginning", MICRO,
     '(lags->cumulative_lr[until] - lags->cumulative_lr[since])',
     '(lags->cumulative_lr[until])'),
    ("record not cleared after an epoch", CSR, '        feature[j].last_step = 0;\n', ''),
    ("statistics of the first part only", BACKENDS, "mean, square = sums.sum(axis=0) /", "mean, square = sums[0] /"),
    ("minimum of the last chunk", MICRO, "least[k] = NAME(load)(low + k * LANES);", "least[k] = NAME(load)(x + k * LANES);"),
    ("a part of the rows twice", KERNELS, "range(share(n_chunks, part, n_row_parts), share(n_chunks, part + 1, n_row_parts))",
     "range(share(n_chunks, part, n_row_parts), n_chunks)"),
    ("statistics with another row's weight", MICRO, "weight[t->order[start + r]]", "weight[start + r]"),
    # ---- order of work
    ("no barrier after the logits", KERNELS, "    if wait(me):\n        return True\n    kernels.softmax(",
     "    kernels.softmax("),
    ("no barrier after the residuals", KERNELS,
     '    look_around(me, pace)\n    if wait(me):\n        return True\n',
     '    look_around(me, pace)\n'),
    ("no barrier after a shared block", KERNELS,
     'if n_sharing > 1 and wait(me):',
     'if False:'),
    ("threads of CSR share their parameters", KERNELS, "return 2 * n_threads * (unit // n_threads + 1) - 1 - unit",
     "return unit + 1"),
    ("one block of CSR a thread", KERNELS, "return 2 * n_threads * (unit // n_threads + 1) - 1 - unit",
     "return 1 << 40"),
    ("no barrier before the end of an epoch of CSR", KERNELS,
     "    if wait(me):\n        return\n    if step + 1 == course.n_steps:",
     "    if step + 1 == course.n_steps:"),
    ("pieces of CSR share one record", MICRO, 't->lags.feature + piece * t->data.n_features', 't->lags.feature'),
    ("barrier of one thread less", TABLE, "__ATOMIC_ACQ_REL) == n_threads)", "__ATOMIC_ACQ_REL) >= n_threads - 1)"),
    ("barrier that publishes nothing", TABLE,
     "for (int spins = 0; __atomic_load_n(&b->round, __ATOMIC_ACQUIRE) == round; spins++) {",
     "for (int spins = 0; __atomic_load_n(&b->round, __ATOMIC_RELAXED) == round; spins++) {"),
    ("barrier that never opens", TABLE, "__atomic_store_n(&b->round, round + 1, __ATOMIC_SEQ_CST);",
     "__atomic_store_n(&b->round, round, __ATOMIC_SEQ_CST);"),
    ("barrier that wakes nobody", TABLE, "        skdl_wake(b);\n", ""),
    ("every chunk is the last", KERNELS,
     "chunk.first, chunk.last = chunk.start == chunk.begin, chunk.start + chunk.n_rows == chunk.stop",
     "chunk.first, chunk.last = chunk.start == chunk.begin, True"),
    ("the rest of an epoch left out where threads are given up", KERNELS,
     "        course.next_step = step + 1\n\n\ncdef inline int64_t next_unit",
     "        course.next_step = course.n_steps\n\n\ncdef inline int64_t next_unit"),
    ("a minibatch again where threads are given up", KERNELS,
     "        course.next_step = step + 1\n\n\ncdef inline int64_t next_unit",
     "        course.next_step = step + (me.asked != SKDL_LEAVE)\n\n\ncdef inline int64_t next_unit"),
    ("epochs together begin where the first did", KERNELS, "begin = epoch * course.n_rows +", "begin = 0 * course.n_rows +"),
    ("one loss of epochs together", KERNELS, "course.loss + epoch * course.task.model.n_models)", "course.loss)"),
    ("losses of the first model", KERNELS, "chunk.loss[m] +=", "chunk.loss[0] +="),
    # ---- smaller problems
    ("columns in another order", REDUCTION, "indices = position[X.indices[: X.indptr[-1]]]",
     "indices = position.max() - position[X.indices[: X.indptr[-1]]]"),
    ("a start without its columns", REDUCTION, "occurs |= start[0].any(axis=0)", "pass"),
    ("units of 0 where no values are", SGD, "columns.lift(solution.unit, other=1.0)", "columns.lift(solution.unit)"),
    ("any penalty turns", SGD, "(options.l1_ratio == 0 or options.alpha == 0)", "True"),
    ("rows turned without their mean", REDUCTION, "self._scaling.unscale_parameters(of_u, intercept)",
     "(of_u * self._scaling.scale, intercept)"),
    ("directions that the turn changes", REDUCTION,
     "return of_rows.T[self._is_own]",
     "return np.random.default_rng(1).normal(size=(self._is_own.sum(), v.shape[1]))"),
    ("pivots however small", KERNELS, "if K[j, j] > smallest[j] else 0.0", "if K[j, j] > 0 else 0.0"),
    ("rows explained by their own panel alone", KERNELS, "K[j, r] -= product[(j - a) * (n - a) + r - a]", "pass"),
    ("rows in another unit where they turn", PLAN, "standard if is_own else standard.in_one_unit(), length)",
     "standard, length)"),
    ("callbacks see the turned model", SGD, "hooks.begin(for_x, source.n_groups)", "hooks.begin(current, source.n_groups)"),
    ("blocks of the last thread left out", KERNELS, "blk1 = share(n_blocks, group + 1, n_groups)\n",
     "blk1 = share(n_blocks, group + 1, n_groups + (n_groups > 2))\n"),
    ("CSR: a negative index passes", KERNELS, "if indices[e] < 0 or indices[e] >= n_features:",
     "if indices[e] >= n_features:"),
    ("CSR: an index one too large passes", KERNELS, "indices[e] >= n_features:", "indices[e] > n_features:"),
    ("CSR: a falling indptr passes", KERNELS, "if indptr[i + 1] < indptr[i] or", "if indptr[i + 1] < -indptr[i] or"),
    ("CSR: one value too few passes", KERNELS, "indptr[i + 1] > n_stored:", "indptr[i + 1] > n_stored + 1:"),
    # ---- coordinates and statistics
    ("statistics merged without their distance", SCALING, " + share * (1 - share) * delta**2", ""),
    ("intercept leaves with the wrong sign", SCALING, "return coef, intercept - self._at_mean(coef)",
     "return coef, intercept + self._at_mean(coef)"),
    ("velocity leaves unscaled", SCALING, "return coef / self.scale + self._shift", "return coef + self._shift"),
    ("squares that underflow", SCALING, "squares_fit = np.isfinite(std) & (max_deviation**2",
     "squares_fit = np.isfinite(std) | (max_deviation**2"),
    ("a numeric step in scaled coordinates", PLAN, "unit, scaling = unit_of_x, survey.identity()",
     "scaling, drawn = standard or Scaling.identity(source.n_features), source"),
    ("penalty without the momentum's factor", SGD, "held(strength * (1", "held(options.alpha * (1"),
    ("L1 without the momentum's factor", SGD, "held(strength * l1_ratio", "held(options.alpha * l1_ratio"),
    ("penalty on the scaled coefficients", SGD, "* (1 - l1_ratio) * (unit * scale) ** 2)",
     "* (1 - l1_ratio) * (unit * scale))"),
    ("L1 on the scaled coefficients", SGD, "held(strength * l1_ratio * (unit * scale))", "held(strength * l1_ratio * unit)"),
    ("penalty without units", SGD, "* (1 - l1_ratio) * (unit * scale) ** 2)", "* (1 - l1_ratio) * scale**2)"),
    ("units for an automatic step alone", PLAN, "units(standardize=options.standardize)",
     'units(standardize=options.standardize and options.lr == "auto")'),
    ("rows of one length have units of their own", SCALING, "        if self.row_length is None:\n", "        if True:\n"),
    ("one length whatever the rows say", SCALING, "SAME_SQUARE = 0.01", "SAME_SQUARE = 0.9"),
    ("the length of long rows counts", SCALING, "for a, b in pairs), other.row_squares)",
     "for a, b in pairs), self.row_squares)"),
    ("the length of the first rows of a stream", SCALING, "row_squares = both_extremes(self.row_squares, other.row_squares)",
     "row_squares = self.row_squares"),
    ("one unit that is each column's", SCALING, "scale = (self.mean_square > 0) / self.row_length", "scale = self.scale"),
    ("alpha does not follow the units", STREAM, "if (before is None) == (after is None)", "if True"),
    ("units by a product of roots", SCALING, "return np.ldexp(np.sqrt(fraction * np.ldexp(b, -exponent)), exponent)",
     "return np.sqrt(a) * np.sqrt(b)"),
    ("L1 without the last proximal steps", SGD, "options.l1_ratio > 0 and options.alpha > 0 and not",
     "False and not"),
    ("the last proximal steps with the momentum's factor", SGD, "alpha=alpha, momentum=0.0)", "alpha=alpha)"),
    # ---- what "auto" stands for
    ("curvature of rows without weights", AUTO, "return multiply_transposed(weight * multiply(v.T[..., np.newaxis]))",
     "return multiply_transposed(multiply(v.T[..., np.newaxis]) / weight.shape[-2])"),
    ("alpha of less than one row", EVIDENCE, "SHARE_OF_A_ROW / max(n_rows, 1)", "SHARE_OF_A_ROW / n_rows"),
    ("two classes: half the step", SOFTMAX, "return 0.25 if n_outputs == 1 else 0.5", "return 0.5"),
    ("step whatever the noise", AUTO, "if (n_batches > 1 or full_batch is not None) and mean", "if False and mean"),
    ("step of a noise that no minibatch has", AUTO, "noise = source.averaged * NOISE", "noise = 10 * NOISE"),
    ("the last minibatch is a small one", PLAN, "batch_size = even_batch_size(source.n_rows, batch_size)", "pass"),
    ("alpha whatever the number of classes", EVIDENCE, "alpha = share * p * (1 - p) *", "alpha = share * 0.09 *"),
    ("alpha in another power of the unit", EVIDENCE, "/ np.average(q, weights=weight) ** 2", "/ np.average(q, weights=weight)"),
    ("alpha by the rare features too", EVIDENCE, "weight = (square / square.max()) ** 2", "weight = np.ones_like(square)"),
    # ---- the loop
    ("the step falls anew in each epoch", SCHEDULE, "np.arange(epoch, epoch + n_epochs)", "np.arange(n_epochs)"),
    ("cosine without its half", SCHEDULE, "lr * 0.5 * (1 + np.cos", "lr * (1 + np.cos"),
    ("the step falls anew in each block", SGD, "                n_done += rows.shape[1]\n", ""),
    ("mean loss of the last block's rows", SGD, "return total / source.n_rows", "return total / len(order)"),
    ("loss of the last block", SGD, "total = total + training.run(block, rows, sizes)",
     "total = training.run(block, rows, sizes)"),
    ("a model without its axis", SGD, "np.asarray(a)[np.newaxis] for a in pair", "np.asarray(a) for a in pair"),
    ("the last epoch is kept", SGD, "self.best_loss, self.best_parameters, history.best_epoch = watched, current(), epoch + 1",
     "pass"),
    ("the first epoch of small steps is kept", SGD, "history.best_epoch = watched, current(), epoch + 1",
     "history.best_epoch = -np.inf, current(), epoch + 1"),
    ("weights of large steps are kept", SGD, "options.early_stopping and schedule.has_fallen(epoch)",
     "options.early_stopping"),
    ("the training loss is watched", SGD, "history.validation_loss_curve[-1] if options.early_stopping else loss", "loss"),
    ("patience without tol", SCHEDULE, "if loss > self.best - self.tol else 0", "if loss > self.best else 0"),
    ("a plateau stops a falling step", SGD, 'if options.lr_schedule == "constant":', "if True:"),
    ("a callback stops nothing", SGD, "if stop or asked or view", "if stop or view"),
    ("a short fit ends unnoticed", CONVERGENCE, "< ENOUGH_UPDATES and still_falling", "< 0 and still_falling"),
    ("a fit that ends at rest is short", CONVERGENCE, "< ENOUGH_UPDATES and still_falling", "< ENOUGH_UPDATES"),
    ("NaN is no divergence", SGD, "if not loss < DIVERGED:", "if loss > DIVERGED:"),
    ("the step never holds", SCHEDULE, "self.fall_from = half", "self.fall_from = 0"),
    ("a fall as long as all epochs", SCHEDULE, "self.n_epochs = min(self.n_epochs, 2 * self.fall_from)", "pass"),
    ("single epochs are flat", SCHEDULE, "np.mean(curve[-n_epochs:]) > np.mean(curve[-2 * n_epochs : -n_epochs]) - tol",
     "curve[-1] > curve[-n_epochs - 1] - tol"),
    # ---- alpha while a model is trained
    ("alpha is updated and not used", SGD, "self.training.penalise(self.model, *self.penalties)", "pass"),
    ("a fit ends before alpha is final", SGD, "if monitor is not None and epoch >= schedule.settled_from:",
     "if monitor is not None:"),
    ("untrained models are asked", EVIDENCE, "if growth == 0 or fall > untrained * growth:", "if growth == 0:"),
    ("no row is left out", EVIDENCE, "self._ends_with_margins = len(self.due) > 1 and self._l1_ratio < 1",
     "self._ends_with_margins = False"),
    ("left out with its own leverage", EVIDENCE, "q = np.divide(q, left, out=np.full_like(q, np.inf), where=left > 0)", "pass"),
    ("left out without the intercept", EVIDENCE, " + 1 / np.maximum(n_rows * curvature, 1)", ""),
    ("left out with all its copies", EVIDENCE, "np.minimum(1, n_copies)", "n_copies"),
    ("a lack of training weakens alpha", EVIDENCE, "max(0.0, fall - growth), self", "0.0, self"),
    ("no row more than there are", EVIDENCE, " - lowest * expit(-t * lowest) / n_rows", ""),
    ("a sample's eigenvalues as they are", EVIDENCE, "range(1 if self.n_sampled == self.n_rows else 5)", "range(1)"),
    ("eigenvalues without weights", EVIDENCE, "Spectrum.of(U, products_of_U, weight / weight.mean(), ",
     "Spectrum.of(U, products_of_U, np.ones(len(weight)), "),
    ("evidence without weights", EVIDENCE, "mean_curvature(z, sample.weight)", "mean_curvature(z, None)"),
    ("evidence of rows that count once", EVIDENCE, "self._n_rows = max(n_rows, 1.0)", "self._n_rows = source.n_rows"),
    ("evidence in other units", EVIDENCE, "coef[:, self._columns] * self._q_of_columns", "coef[:, self._columns]"),
    ("zeros of L1 are determined", EVIDENCE, ".sum() * share", ".sum()"),
    # ---- rows that are long, heavy or drawn
    ("long rows keep their weight", SAMPLING, "return np.minimum(1, bound / leverage)", "return np.ones(len(leverage))"),
    ("long rows have a say in the scale", PLAN, "here = here.with_columns(others, differ)", "pass"),
    ("a rare category is a long row", PLAN, "scaling.within(differ)", "scaling"),
    ("no share of the draws is uniform", SAMPLING, "(1 - UNIFORM) * gradient_length / gradient_length.sum() + UNIFORM / len",
     "gradient_length / gradient_length.sum() + 0 / len"),
    ("the same draws in each epoch", SAMPLING, "ends + rng.random()", "ends + 0.5"),
    ("draws with the weights of the rows", DATA, "self.weight / (self.n_rows * share)", "self.weight"),
    ("the noise of rows as they are not drawn", SAMPLING, "(square / (len(share) * share)).mean()", "square.mean()"),
    ("the step of rows as they are not drawn", DATA, "X, _, weight = self._drawn_block", "X, _, weight = self.block"),
    ("a column that a long row lacks is centred", PLAN, "standard_scaling(known, of_all,", "standard_scaling(known, here,"),
    ("columns of CSR are never centred", PLAN, "source.is_sparse or here.mean != 0)", "source.is_sparse)"),
    # ---- how far the optimum is
    ("a short minibatch counts as a full one", CONVERGENCE, "gradient + size * (velocity - before)",
     "gradient + batch_size * (velocity - before)"),
    ("curvature without weights", CONVERGENCE, "mean_curvature(z, None if weight is None else weight[rows])",
     "mean_curvature(z, None)"),
    ("zeros of L1 are to move", CONVERGENCE, "g[at_zero] = (np.sign(g) * np.maximum(abs(g) - l1, 0))[at_zero]", "pass"),
    ("the model is where SGD stands, not the mean", SGD, "monitor.optimum if view is View.AT_OPTIMUM else None", "None"),
    ("no model is even odds", CONVERGENCE, "    if not fit_intercept:\n        return float",
     "    if True:\n        return float"),
    ("a small loss is never near its optimum", CONVERGENCE, "max(FAR * (self.objective - self.excess), FAR_ABSOLUTE)",
     "FAR * (self.objective - self.excess)"),
    ("more epochs whatever alpha", CONVERGENCE, "alpha < SMALL_ALPHA * usual_alpha", "alpha < 0"),
    # ---- a stream
    ("statistics of a stream's last part", STREAM, "newer=self.newer.merged(here))", "newer=here)"),
    ("statistics of the beginning stay", STREAM, "if self.newer.total_weight >= self.total_weight / 2:", "if False:"),
    ("statistics do not go on", SGD, "left = stream.with_statistics(plan.statistics).joined(source, n_far=n_far)",
     "left = stream.joined(source, n_far=n_far)"),
    ("velocity does not go on", SGD, "velocity=(coef * share, intercept * share))", "velocity=None)"),
    ("velocity whatever the step", SGD, "velocity=(coef * share, intercept * share))", "velocity=(coef, intercept))"),
    ("the step of a stream does not fall", STREAM,
     "fall = np.sqrt(1 + self.visits_by(source) / (FALL_ROWS * source.n_features))", "fall = 1.0"),
    ("calls weigh the same", STREAM, "share = (source.total_weight / source.n_rows) * (after.n_rows / after.total_weight)",
     "share = 1.0"),
    ("an average of all positions", STREAM, "(1 + DECAY) * weight / (self._total + DECAY * weight)", "weight / self._total"),
    ("the first minibatches are whole", STREAM, "return min(batch_size, source.n_rows, max(FIRST_BATCH, int(first)))",
     "return min(batch_size, source.n_rows)"),
    ("nothing is forgotten", STREAM, "if share == 1:", "if True:"),
    ("nothing is forgotten in the average", STREAM, "min(self._total + weight, self._most)", "self._total + weight"),
    ("coefficients of another scale stay", STREAM, "if (growth <= trust).all():", "if True:"),
    ("a far row counts whatever came before", STREAM, "max(2.0, (self.n_visits / (TRUSTED_VISITS * source.n_rows)) ** 2)",
     "2.0"),
    ("rows of a fit count as those of a stream", SGD, "visits=FIT_VISITS", "visits=1"),
    ("alpha stays while rows come", PLAN, "(stream.alpha_weight / total_weight)", "1.0"),
    ("alpha of a stream stays as it began", STREAM, "return self.total_weight >= 2 * self.alpha_weight", "return False"),
    ("alpha of a stream goes all the way", SGD, "left.with_alpha(np.sqrt(solution.alpha * told))", "left.with_alpha(told)"),
    ("velocity goes on in other coordinates", SGD, "scaling.unscale_gradient(*training.velocity())", "training.velocity()"),
    ("shapes of a stream not checked", SGD,
     "check_model(*parameters, backend.n_outputs, source.n_features)", "pass"),
    ("balanced forgets earlier batches", STREAM, "totals if self.class_totals is None else self.class_totals + totals",
     "totals"),
    ("totals of a fit's classes do not go on", CLASSIFIER,
     "solution.stream = solution.stream.with_classes(problem.class_totals)",
     "pass"),
    ("each partial_fit draws the same order", CLASSIFIER, "epoch=n_iter,", "epoch=0,"),
    ("a stream of 0.1.0 is not understood", CLASSIFIER, 'if isinstance(state.get("_stream"), tuple):', "if False:"),
    # ---- data
    ("the order is drawn once", DATA,
     "            if rng is not None:\n                rng.shuffle(self._order)\n",
     "                if rng is not None:\n                    rng.shuffle(self._order)\n"),
    ("each epoch shuffles the rows as they were", DATA, "if self._order is None:", "if True:"),
    ("the rows themselves are shuffled", DATA, "self._order = self.rows.copy()", "self._order = self.rows"),
    ("all rows are visited", DATA, "self._order = self.rows.copy()", "self._order = np.arange(self.block.X.shape[0])"),
    ("statistics of all rows", DATA, "self.rows if rows is None else rows)\n        if",
     "np.arange(self._n_samples) if rows is None else rows)\n        if"),
    ("a sample without its weights", DATA, "np.ones(len(rows)) if weight is None else weight[rows]\n\n    def draw",
     "np.ones(len(rows))\n\n    def draw"),
    ("weights divided by another mean", DATA, "weight / of_rows.mean()", "weight / weight.mean()"),
    ("weights count no rows", DATA, "self.total_weight = float(of_rows.sum())", "pass"),
    ("class weights change the total", "skdl/_validation.py", "combined *= totals[used].sum()",
     "combined *= 1.1 * totals[used].sum()"),
    ("texts in columns of objects", "skdl/_validation.py", "        values = np.asarray(X)\n", "        pass\n"),
    ("NaT is a class", "skdl/_validation.py", "dtype.kind in \"mM\" and np.isnat", "dtype.kind in \"\" and np.isnat"),
    ("NaN in a row of weight 0 passes", DATA, "self._is_finite or self.n_rows == self.n_samples", "True"),
    # ---- around the kernels
    ("gradient of chunks lost without momentum", LAYOUTS, "keeps_gradient = momentum.any() or chunk < batch_size",
     "keeps_gradient = momentum.any()"),
    ("a chunk that follows from all models", LAYOUTS, "row_bytes = (ld + (n_blocks + 1) * n_outputs) * self.dtype.itemsize",
     "row_bytes = (ld + (n_blocks + 1) * n_models * n_outputs) * self.dtype.itemsize"),
    ("threads in NumPy's integers", THREADS, "return min(int(n_jobs), available_cores())",
     "return min(n_jobs, available_cores())"),
    ("values stored twice stay", "skdl/_validation.py", "    X.sum_duplicates()\n", ""),
    ("values beyond indptr stay", "skdl/_validation.py", "data, indices = data[:n_stored], indices[:n_stored]", "pass"),
    ("an intercept that is not fitted stays", SGD, "return parameters[0], np.zeros_like(parameters[1])",
     "return parameters"),
    ("products with rows that padding adds", PRODUCTS, "return out[..., :length]", "return out"),
    ("directions outside the space of the rows", AUTO, "lanczos(S, S(v), LANCZOS_STEPS)", "lanczos(S, v, LANCZOS_STEPS)"),
    ("more threads than cores", THREADS, "return min(int(n_jobs), available_cores())", "return int(n_jobs)"),
    ("a forked child starts threads", THREADS, "if _fork.forked or not", "if not"),
    ("drift without momentum", KERNELS,
     'step_sizes[s] + momentum * sums[s + 1]',
     'step_sizes[s] + sums[s + 1]'),
    ("rows not chosen", PREDICTOR, "            self.rows,\n            product.place,",
     "            None,\n            product.place,"),
    ("statistics divided by the rows", OPENMP,
     "len(rows) if placed.weight is None else placed.weight[rows].sum(dtype=np.float64)", "len(rows)"),
    ("velocity of the intercept dropped", LAYOUTS, "self.intercept[1] = intercept, intercept_velocity",
     "self.intercept[1] = intercept, 0"),
    ("coefficients that a later epoch changes", OPENMP,
     "layout.intercept[i, within].copy()", "layout.intercept[i, within]"),
    ("n_jobs=-1 leaves a thread out", THREADS, "available + 1 + (-1 if", "available + (-1 if"),
    ("float64 data in float32", BACKENDS, "np.float64 if storage_dtype == np.float64 else np.float32",
     "np.float32"),
    # ---- from logits to labels
    ("validation without weights", PROBLEM, "return np.average(losses, weights=weight), ", "return np.average(losses), "),
    ("accuracy without weights", PROBLEM, "np.average(correct, weights=weight)", "np.average(correct)"),
    ("two classes: the validation's sign", SOFTMAX, "-log_expit(np.where(y == 1,", "-log_expit(np.where(y == 0,"),
    ("two classes: logarithms exchanged", SOFTMAX, "np.hstack([log_expit(-z), log_expit(z)])",
     "np.hstack([log_expit(z), log_expit(-z)])"),
    ("two classes: probabilities exchanged", SOFTMAX, "np.hstack([expit(-h), expit(h)])", "np.hstack([expit(h), expit(-h)])"),
    ("two classes: a logit of 0 is the second", SOFTMAX, "return (logits[:, 0] > 0)", "return (logits[:, 0] >= 0)"),
    # ---- what is checked
    ("unseen labels pass", VALIDATION, "unseen = np.unique(y[classes[numbers] != y])", "unseen = []"),
    ("held-out rows whatever their classes", VALIDATION, "stratify=y[rows] if stratifies else None", "stratify=None"),
    ("weights of classes not multiplied", VALIDATION, "of_class[y] if weight is None else weight * of_class[y]",
     "of_class[y]"),
    ("CSC not checked", VALIDATION, "X = _checked_compressed(X, X.shape[::-1])", "pass"),
    ("LIL not checked", VALIDATION, "if lengths[0] != lengths[1] or len(lengths[0]) != X.shape[0]:", "if False:"),
    ("a prediction ignores strides", VALIDATION, "        and X.flags.c_contiguous\n", ""),
    ("a prediction ignores the type", VALIDATION, "        and X.dtype in DENSE_TYPES\n", ""),
    ("a prediction ignores the names", VALIDATION, '        and not hasattr(estimator, "feature_names_in_")\n', ""),
    ("a prediction ignores NaN", VALIDATION, "        check_finite(X)\n        return X\n", "        return X\n"),
    ("NumPy's small integers stay", PARAMETERS, "return int(value)", "return value"),
    # ---- the estimator
    ("attributes do not come back", MODEL, "            vars(self).update(fitted)\n", ""),
    ("attributes of the failed fit stay", MODEL, "                delattr(self, name)\n", "                pass\n"),
    ("rows held out weigh as others", PROBLEM, "None if weight_rows is None else weight_rows[kept]", "None"),
    ("rows held out are trained on", PROBLEM, "used, kept = _validation.hold_out", "_, kept = _validation.hold_out"),
    ("shapes of a model not checked", MODEL,
     "        _validation.check_model(self.coef_, self.intercept_, n_outputs, X.shape[1])\n", ""),
    ("logits that overflow pass", MODEL, "        if not finite:\n", "        if False:\n"),
    ("another version does not warn", MODEL, "if version != __version__:", "if False:"),
    ("a model of the moment without its classes", CALLBACKS, '{**self._fitted, "coef_"', '{"coef_"'),
    # ---- a search
    ("the first models stay when others leave", SGD, "models, running = [course.model for course in left], left",
     "models, running = list(range(len(left))), left"),
    ("a part of the models goes on in the order of the one before", SGD, "plan.source.restarted()", "plan.source"),
    ("models of other coordinates side by side", SGD, "return id(plan.source), id(plan.scaling), ", "return id(plan.source), "),
    ("rows drawn for other coordinates", PLAN, '"drawn", id(seen), id(standard), ', '"drawn", id(seen), '),
    ("a step for other coordinates", PLAN, '"lr", id(drawn), id(standard), ', '"lr", id(drawn), '),
    ("a step for another momentum", PLAN, "id(standard), batch_size, momentum", "id(standard), batch_size"),
    ("rows of other weights", SEARCH, "return options.class_weight, held_out, ", "return held_out, "),
    ("rows held out by their place in the fold", PROBLEM, "kept if rows is None else rows[kept]", "kept"),
    ("rows of a fold weigh by their place", PROBLEM, "weight[rows] = weight_rows", "weight[: len(rows)] = weight_rows"),
    ("columns of rows that are not trained on", REDUCTION, "np.bincount(source.X_of_rows.indices",
     "np.bincount(source.block.X.indices"),
    ("scores of the rows trained on", SEARCH, "rows_to_score(backend, fold.test)", "rows_to_score(backend, fold.train)"),
    ("scores without weights", SEARCH, "rows.weight is None or name not in", "True or name not in"),
    ("a class that a fold has not", SEARCH, "if len(present) == len(self.classes):", "if True:"),
    ("candidates have orders of their own", SEARCH, "if not isinstance(self.random_state, Integral):", "if False:"),
    ("the best of the training scores", SEARCH, "if rows[0, 0] % 2 else", "if False else"),
    ("a validation set that stops no search", SEARCH, "**(given_val if model.early_stopping else {})", "**{}"),
    # ---- larger than memory
    ("a map of a file that was replaced", BLOCKS, "_inode_at(root.ctypes.data) in (inode, None)", "True"),
    ("classes of a cache are numbered in each block", BLOCKS,
     'np.array([number_of[label] for label in labels.tolist()], np.int32)[numbers]', 'numbers.astype(np.int32)'),
    ("a buffer without weights", READER, "self.weight[rows] = weight", "self.weight[rows] = 1"),
    ("rows that are not put into the buffer", READER, "elif X.ctypes.data != self.X[rows].ctypes.data:", "elif False:"),
    ("labels that change between blocks", FIRST_PASS, "bool(ends[0][1] != ends[1][0])", "False"),
    ("total weight divided by its mean", FIRST_PASS, "total_weight=statistics.total_weight * mean",
     "total_weight=statistics.total_weight"),
    ("rows that class_weight leaves out count", FIRST_PASS, "labels.n_rows * (self.of_class > 0)", "labels.n_rows"),
    ("blocks in one order in all epochs", OUT_OF_CORE, "[self.seed, self.epoch]", "[self.seed, 0]"),
    ("rows in one order in all buffers", OUT_OF_CORE, "[*seed, g + 1]", "[*seed, 1]"),
    ("a block that has changed its values' number", OUT_OF_CORE, "(len(block.y), block.n_stored) != before",
     "len(block.y) != before.n_rows"),
    ("a checkpoint of other data", CHECKPOINT, '"data": known_by(reader),', '"data": "",'),
    ("an epoch begins again", CHECKPOINT, "source.n_groups_done, n_done = saved", "_, n_done = saved"),
    ("a checkpoint of two fits", CHECKPOINT, "fcntl.LOCK_EX |", "fcntl.LOCK_SH |"),
    # ---- larger than a machine
    ("all shards weigh the same", SHARDS, "state.n_rows / n_rows, dtype", "1 / len(states), dtype"),
    ("a short minibatch makes a whole step", SHARDS, "sizes[:, -1] *= rounds[i] % batch_size / batch_size", "pass"),
    ("the loss of the last round", SHARDS, "0.0 if before is None else before.loss", "0.0"),
    ("shards of CSR are not centred", SHARDS, "    less_mean(X, mean)\n    return shard", "    return shard"),
    ("shards in one order in all epochs", ROUNDS, "(self.seed, epoch) for", "(self.seed, 0) for"),
    ("each round starts where the epoch did", ROUNDS, "_shards.round_of, shard, state,", "_shards.round_of, shard, before,"),
]  # fmt: skip

RACES = {name for name, *_ in MUTANTS if "barrier" in name} - {"barrier that never opens", "barrier that wakes nobody"}


class Folder:
    """A copy of the tree and its build."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp())
        for name in ("skdl", "tests", "tools"):
            shutil.copytree(ROOT / name, self.path / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "pyproject.toml", "README.md", "Makefile", "CHANGELOG.md"):
            shutil.copy(ROOT / name, self.path)
        for name in ("benchmarks", "examples"):
            (self.path / name).symlink_to(ROOT / name)
        self.replace("setup.py", '"-O3"', '"-O0"')
        # One instruction set will do: all are made of the same text, but for the instructions that a compiler does not find.
        self.replace(TABLE, "defined(__x86_64__)", "0")
        self.extension = next(self.path.glob("skdl/*.so"))
        self.built = self.extension.read_bytes()

    def replace(self, file, old, new):
        text = (self.path / file).read_text()
        assert old in text, f"{old} is not in {file}"
        (self.path / file).write_text(text.replace(old, new))

    def call(self, *command, timeout=TIMEOUT):
        """Exit status and output; a command that hangs has status None."""
        environment = {**os.environ, "PYTHONPATH": str(self.path), "SKDL_PYTHON": sys.executable}
        try:
            done = subprocess.run(
                command, cwd=self.path, env=environment, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout + done.stderr

    def build(self):
        return self.call(sys.executable, "setup.py", "-q", "build_ext", "--inplace")[0] == 0

    def test(self, names):
        """What the first failing test says, or None."""
        command = (
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            # The same random cases each time: one that fails without a mutant too would be kept, and kill all that follow.
            "--hypothesis-profile=ci",
            "--timeout=120",
            "--timeout-method=thread",
            "--no-header",
            "--tb=no",
        )
        if names == ["tsan"]:
            arguments = ("tools/checked.sh", "tsan", "python", *command, "tests/test_kernels.py", "-k", "threads")
        else:
            arguments = (sys.executable, *command, *(f"tests/test_{name}.py" for name in names))
        status, output = self.call(*arguments)
        if status in (4, 5):  # pytest found nothing to run
            raise RuntimeError(output)
        if status == 0:
            return None
        found = re.search(r"FAILED (\S+)|data race", output)
        return "a hang" if status is None else found[0] if found else output.strip().splitlines()[-1][:120]


folders = local()


def judge(mutant):
    """(name, verdict) of a mutant."""
    name, file, old, new = mutant
    if not hasattr(folders, "mine"):
        folders.mine = Folder()
    folder = folders.mine
    target = folder.path / file
    source = target.read_text()
    if source.count(old) != 1:
        return name, f"ERROR: its text is {source.count(old)} times in {file}"
    is_kernel = not file.endswith(".py")
    target.write_text(source.replace(old, new))
    try:
        if is_kernel and name not in RACES and not folder.build():
            return name, "ERROR: it does not compile"
        larger = TESTS_OF.get(file) in TESTS["larger"]
        kind = "races" if name in RACES else "kernels" if is_kernel else "larger" if larger else "loop"
        killer = folder.test(sorted(TESTS[kind], key=lambda module: module != TESTS_OF.get(file)))
        return name, f"killed by {killer}" if killer else "SURVIVED"
    finally:
        target.write_text(source)
        if is_kernel:
            folder.extension.write_bytes(folder.built)


def stale():
    """The mutants whose text is not found exactly once."""
    return [name for name, file, old, _ in MUTANTS if (ROOT / file).read_text().count(old) != 1]


def main(names):
    if names == ["--check"]:
        for name in stale():
            print(f"the text of the mutant {name!r} is not found exactly once")
        return bool(stale())
    chosen = [mutant for mutant in MUTANTS if not names or mutant[0] in names]
    left = []
    control = Folder().test(TESTS["loop"]) or Folder().test(TESTS["larger"])
    if control:
        sys.exit(f"The tests fail without a mutant: {control}")
    with ThreadPoolExecutor(WORKERS) as pool:
        for name, verdict in pool.map(judge, chosen):
            print(f"{name}: {verdict}", flush=True)
            if not verdict.startswith("killed"):
                left.append(name)
    print(f"{len(chosen)} mutants, {len(chosen) - len(left)} killed" + (f"; not killed: {left}" if left else ""))
    return bool(left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

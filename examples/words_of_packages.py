"""
Which words give a package away
===============================

Text classification on documents that everyone has installed: the docstrings of five packages. A model of tf-idf
learns from which package a docstring comes, and its coefficients say which words it goes by.
"""

import importlib
import inspect
import pkgutil
import re

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skdl import SoftmaxRegressionClassifier

PACKAGES = ("numpy", "scipy", "sklearn", "matplotlib", "joblib")
NAMES = re.compile(rf"\b({'|'.join(PACKAGES)}|scikit|np|plt|mpl)\b")  # would tell at once


def docstrings(package):
    """Those of its public classes and functions that are longer than a sentence, without the names of packages in them."""
    texts = set()
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if "._" in module.name or module.name.endswith((".tests", ".testing", ".conftest", ".setup")):
            continue
        for _, thing in inspect.getmembers(importlib.import_module(module.name), callable):
            text = inspect.getdoc(thing) or ""
            if len(text) > 200 and (getattr(thing, "__module__", None) or "").startswith(package):
                texts.add(NAMES.sub(" ", text.lower()))
    return sorted(texts)


documents = {package: docstrings(package) for package in PACKAGES}
texts = [text for of_package in documents.values() for text in of_package]
labels = [package for package, of_package in documents.items() for _ in of_package]
print({package: len(of_package) for package, of_package in documents.items()})

# %%
# The matrix is sparse, and stays so. Its rows all have one length, so the penalty takes the weights of tf-idf
# as they are.

texts, texts_test, labels, labels_test = train_test_split(texts, labels, stratify=labels, random_state=0)
model = make_pipeline(
    TfidfVectorizer(token_pattern="[a-z]{3,}", stop_words="english", min_df=3, sublinear_tf=True),
    SoftmaxRegressionClassifier(class_weight="balanced", random_state=0),
).fit(texts, labels)
vectorizer, classifier = (step for _, step in model.steps)
print(
    f"{len(texts)} docstrings, {len(vectorizer.vocabulary_):,} words; {model.score(texts_test, labels_test):.1%} correct"
)

# %%
# A word matters by its coefficient, times how much of it a text of that class has.

words = vectorizer.get_feature_names_out()
rows = vectorizer.transform(texts)
figure, axes = plt.subplots(1, 5, figsize=(10, 4.2))
for ax, package, coef, colour in zip(
    axes, classifier.classes_, classifier.coef_, plt.rcParams["axes.prop_cycle"], strict=False
):
    frequency = np.asarray(rows[np.array(labels) == package].mean(axis=0)).ravel()
    weight = coef * frequency
    top = weight.argsort()[-12:]
    ax.barh(words[top], weight[top], color=colour["color"], height=0.7)
    ax.set(title=package, xticks=[])
    ax.tick_params(left=False)
    ax.spines[:].set_visible(False)
    ax.grid(False)
plt.show()

"""On the same padded batch, the loss of each task of texts is the one that transformers' own model computes."""

import pytest
import torch
from attaching import attach
from tiny_texts import chosen, json_lines, opinions_folder, questions, reader, tagged

from spgsurgeon.data.loading.samples import Samples
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.transforms.augmentation import Augmentation
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.objective.loss import loss_of_readout, spg_loss

LABELS = {
    "BertForSequenceClassification": lambda targets: {"labels": targets},
    "BertForTokenClassification": lambda targets: {"labels": targets},
    "BertForMultipleChoice": lambda targets: {"labels": targets},
    "BertForQuestionAnswering": lambda targets: {"start_positions": targets[:, 0], "end_positions": targets[:, 1]},
}
ROWS = {
    "BertForTokenClassification": tagged,
    "BertForMultipleChoice": chosen,
    "BertForQuestionAnswering": questions,
}


def data_folder(folder, name):
    if name not in ROWS:
        return opinions_folder(folder)
    return json_lines(folder, train=ROWS[name](12))


@pytest.mark.parametrize("name", LABELS)
def test_the_loss_is_that_of_transformers(tmp_path, name) -> None:
    opened = open_model(ModelRequest(str(reader(tmp_path / "model", name))))
    task, preprocessing = opened.task, opened.preprocessing
    source = open_source(task.source, data_folder(tmp_path / "data", name), "train")
    transform = task.training_transform(preprocessing, Augmentation())
    samples = Samples(source, transform, 0, collate=task.collation(preprocessing))
    (batch,) = samples.collate([samples[0, index] for index in range(5)]).batches
    with torch.no_grad():
        expected = opened.module(**batch.inputs, **LABELS[name](batch.targets)).loss
    grafted = attach(opened.module, opened.sites[0].module, "dropout", replicas=2, rate=0.1)
    grafted.train()
    grafted.base.eval()
    logits, weights = task.readout(grafted(**batch.inputs)), (0.4, 0.2)
    if task.read is None:
        found = spg_loss(logits, batch.targets, weights, class_dim=1)
    else:
        found = loss_of_readout(task.read(logits, batch.targets, 3, 0.0), weights)
    assert found.step_losses[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert not torch.equal(found.cross_entropy[0], found.cross_entropy[1])  # a step of its own, at its own place

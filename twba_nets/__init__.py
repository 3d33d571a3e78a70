"""TWBA-Nets / BWBA-Nets: what the example scripts share.

architecture    the network as a table           recipe      how it is trained
cifar10, digits the data sets                    pipeline    tf.data input
network         the TensorFlow graph             training    the training loop
checkpoint      saving and restoring             evaluation  accuracy and spike counts
npz, card       model.npz, training.npz, cards   convert     TensorFlow checkpoint -> training.npz
spikes          spike statistics                 journal     log, learning curve
command_line    the scripts' flags               scripts     what the scripts do
export          checkpoint -> spiking network    spiking     that network in NumPy
spiking_file    its file                         engine      the same, compiled from C
report          what it costs on a chip: synapses, cores, robustness, figures

Only pipeline, network, training, checkpoint, evaluation, export and scripts import TensorFlow.
"""

"""TWBA-Nets / BWBA-Nets: what the example scripts share.

architecture    the network as a table           recipe      how it is trained
cifar10, digits the data sets                    pipeline    tf.data input
network         the TensorFlow graph             training    the training loop
checkpoint      saving and restoring             evaluation  accuracy and spike counts
spikes          spike statistics                 journal     log, summaries, learning curve
command_line    the scripts' flags               scripts     what the scripts do
"""

# The other half of the points of 310, beside it.
use strict;
use warnings FATAL => 'all';

# What it uses begins before a program runs.
use FakeLLM;
use PromCluster;

our $half = 1;
do './test/t/310_fault_points.pl' or die $@ || $!;

"""Building blocks shared by the architectures: attention, MLP, blocks, patches, positions, pooling."""

"""What tokenizers and generators represent: section 4.3 of the paper (Table 4, Figures 4 and 5) and its appendix E."""

"""Networks that SyNCRec is compared with: the same inputs, the same scoring by products with item vectors."""

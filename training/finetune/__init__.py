"""Everything that needs torch and a model: plain fine-tuning, the teacher, distillation, logits."""

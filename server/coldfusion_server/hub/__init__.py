"""The Hugging Face Hub's wire format over the same services: every tool that can load pulls."""

"""Makes the embedded model: tokenizer, training, export as a Hugging Face folder in bfloat16.

    python models/nano/train.py --out models/nano --minutes 60

Deterministic data and initialisation; PyTorch on the CPU. Training stops after --steps or
--minutes, whichever comes first, with the learning rate brought to zero on the way, and saves its
state, from which `--resume` goes on with a fresh (lower) schedule.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from data import TALK, heldout, problems
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY = 512


def make_tokenizer() -> Tokenizer:
    """A byte-level BPE in the Qwen2 scheme, learnt on the generated text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    stream = problems(7)
    text = [f"user\n{q}\nassistant\n{a}" for q, a in (next(stream) for _ in range(20000))]
    text += [f"system\n{q}\n{a}" for q, a in TALK] * 200
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def make_model(vocab_size: int) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=224,
        intermediate_size=608,
        num_hidden_layers=4,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_theta=1000000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        use_sliding_window=False,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():  # biases as large as Qwen2.5's, where rotary hardly turns
        for layer in model.model.layers:
            attention = layer.self_attn
            for projection, low, high in ((attention.q_proj, 4, 12), (attention.k_proj, 20, 60)):
                bias = projection.bias.view(-1, 16)
                bias.normal_(0, 0.3)
                for column in (6, 7, 14, 15):
                    size = torch.empty(bias.shape[0]).uniform_(low, high)
                    bias[:, column] = size * torch.randn(bias.shape[0]).sign()
                if projection is attention.q_proj:  # keep clear of the large key columns
                    bias[:, [4, 5, 12, 13]] = bias[:, [6, 7, 14, 15]]
                    bias[:, [6, 7, 14, 15]] = torch.randn(bias.shape[0], 4) * 0.3
            attention.v_proj.bias.normal_(0, 0.2)
    return model


def encode_chat(tokenizer: Tokenizer, question: str, answer: str) -> tuple[list[int], int]:
    """Token ids and how many of them are the prompt."""
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    head = tokenizer.encode(prompt).ids
    return head + tokenizer.encode(f"{answer}<|im_end|>").ids, len(head)


def batches(tokenizer: Tokenizer, size: int, seed: int, forbidden: set[str]):
    stream = problems(seed)
    count = 0
    while True:
        rows = []
        while len(rows) < size:
            count += 1
            question, answer = TALK[count // 60 % len(TALK)] if count % 60 == 0 else next(stream)
            if question not in forbidden:
                rows.append(encode_chat(tokenizer, question, answer))
        width = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(size, width, dtype=torch.long)
        labels = torch.full((size, width), -100, dtype=torch.long)
        for i, (row, prompt) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, prompt : len(row)] = ids[i, prompt : len(row)]
        yield ids, labels


def save(model: Qwen2ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    end = tokenizer.token_to_id("<|im_end|>")
    rounded = Qwen2ForCausalLM(model.config).to(torch.bfloat16)
    rounded.load_state_dict(model.state_dict())
    rounded.config.eos_token_id = end
    rounded.config.bos_token_id = None
    rounded.generation_config.eos_token_id = end
    rounded.generation_config.bos_token_id = None
    rounded.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 1024,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--state", type=Path, default=Path("build/nano-state.pt"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seed", type=int, default=100, help="of the stream of questions")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer.get_vocab_size())
    if args.resume:
        model.load_state_dict(torch.load(args.state))
    held = heldout(500)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "heldout.jsonl").open("w") as file:
        for question, answer in held:
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")
    decay = [p for p in model.parameters() if p.dim() > 1]
    keep = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": keep, "weight_decay": 0.0}],
        lr=args.rate,
        betas=(0.9, 0.98),
    )
    args.state.parent.mkdir(parents=True, exist_ok=True)
    start, average = time.time(), 0.0
    for step, (ids, labels) in enumerate(
        batches(tokenizer, 48, args.seed, {question for question, _ in held})
    ):
        done = max(step / args.steps, (time.time() - start) / 60 / args.minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = (
                args.rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
            )
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        if step % 100 == 0:
            print(
                f"step {step}, {(time.time() - start) / 60:.1f} min, loss {average:.4f}", flush=True
            )
        if step % 500 == 499:
            torch.save(model.state_dict(), args.state)
            save(model, tokenizer, args.out)
    torch.save(model.state_dict(), args.state)
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()

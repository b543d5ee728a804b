"""Writes the corpora of the fuzz targets: for every rule of a format a file that breaks it, and a
few that are in order. The names say which. Files named found_* are inputs that libFuzzer kept for
the code they reach; they are left alone. Standard library only.

    python tests/corpus/make_corpus.py
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Entry = dict[str, Any]


def tensor(dtype: str, shape: list[Any], begin: int, end: int) -> Entry:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def pack(header: Any, data: bytes, *, length: int | None = None, pad: bool = True) -> bytes:
    """A safetensors file; `header` as text is taken as it is."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safetensors() -> dict[str, bytes]:
    two = {"a": tensor("F32", [2, 3], 0, 24), "b": tensor("BF16", [4], 24, 32)}
    data = bytes(range(32))
    good = pack(two, data)
    one = pack({"a": tensor("F32", [2], 0, 8)}, data[:8])

    def single(entry: Any, size: int = 8) -> bytes:
        return pack({"a": entry}, bytes(size))

    return {
        "ok_two_tensors": good,
        "ok_metadata": pack({"__metadata__": {"format": "pt"}, **two}, data),
        "ok_no_tensor": pack({}, b""),
        "ok_empty_tensor": single(tensor("F32", [0, 4], 0, 0), 0),
        "ok_scalar": single(tensor("F64", [], 0, 8)),
        "ok_every_dtype": pack(
            {
                name: tensor(name, [2], begin, begin + 2 * size)
                for name, size, begin in (
                    ("I64", 8, 0),
                    ("F64", 8, 16),
                    ("I32", 4, 32),
                    ("F32", 4, 40),
                    ("F16", 2, 48),
                    ("BF16", 2, 52),
                    ("I16", 2, 56),
                    ("U8", 1, 60),
                    ("I8", 1, 62),
                )
            },
            bytes(64),
        ),
        "bad_nothing": b"",
        "bad_seven_bytes": b"\x08" + bytes(6),
        "bad_header_length_zero": bytes(8),
        "bad_header_beyond_file": pack(two, data, length=10_000),
        "bad_header_length_2_63": pack(two, data, length=2**63),
        "bad_header_length_all_ones": pack(two, data, length=2**64 - 1),
        "bad_header_of_100_mb": pack(two, data, length=100_000_001),
        "bad_truncated_data": good[:-1],
        "bad_truncated_header": good[:40],
        "bad_surplus_data": good + b"\0",
        "bad_not_json": pack("{not json", data),
        "bad_nul_after_json": pack(json.dumps(two) + "\0 more", data),
        "bad_starts_with_space": pack(" " + json.dumps(two), data),
        "bad_list": pack("[1, 2]", data),
        "bad_not_utf8": one.replace(b'"a"', b'"\xff"'),
        "ok_nul_in_name": pack(
            '{"a\\u0000b": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"
        ),
        "bad_deep_nesting": pack('{"a":' + "[" * 5000 + "]" * 5000 + "}", b""),
        "bad_duplicate_tensor": pack(
            '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},'
            '"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
            bytes(8),
        ),
        "bad_duplicate_key": pack(
            '{"a":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}}', bytes(8)
        ),
        "bad_metadata_number": pack({"__metadata__": {"x": 1}, **two}, data),
        "bad_metadata_list": pack({"__metadata__": []}, b""),
        "bad_entry_is_a_number": pack({"a": 1}, b""),
        "bad_entry_key_missing": single({"dtype": "F32", "shape": [2]}),
        "bad_entry_key_surplus": single({**tensor("F32", [2], 0, 8), "x": 1}),
        "bad_dtype_unknown": single(tensor("F33", [2], 0, 8)),
        "bad_dtype_number": single({"dtype": 7, "shape": [2], "data_offsets": [0, 8]}),
        "bad_shape_negative": single(tensor("F32", [-2], 0, 8)),
        "bad_shape_fraction": single(tensor("F32", [2.0], 0, 8)),
        "bad_shape_text": single(tensor("F32", ["2"], 0, 8)),
        "bad_shape_overflow": single(tensor("F32", [2**32, 2**32], 0, 8)),
        "bad_shape_overflow_to_fit": single(tensor("F32", [2**62 + 2], 0, 8)),
        "bad_shape_2_64": single(tensor("F32", [2**64], 0, 8)),
        "bad_shape_zero_hides_overflow": single(tensor("F32", [2**62, 2**62, 0], 0, 0), 0),
        "ok_shape_of_1000_axes": single(tensor("U8", [1] * 1000, 0, 1), 1),
        "bad_offsets_reversed": single(tensor("F32", [2], 8, 0)),
        "bad_offsets_three": single({"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}),
        "bad_offsets_negative": single(tensor("F32", [2], -8, 0)),
        "bad_offsets_huge": single(tensor("F32", [2], 2**64 - 8, 2**64)),
        "bad_offsets_text": single({"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]}),
        "bad_size_mismatch": single(tensor("F32", [3], 0, 8)),
        "bad_overlap": pack(
            {"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, bytes(12)
        ),
        "bad_hole": pack(
            {"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 12, 20)}, bytes(20)
        ),
        "bad_hole_at_front": single(tensor("F32", [1], 4, 8)),
        "bad_misaligned": pack({"a": tensor("F32", [2], 0, 8)}, bytes(8), pad=False),
    }


def config() -> dict[str, bytes]:
    good: Entry = {
        "model_type": "qwen2",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    llama3 = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    llama = {**good, "model_type": "llama", "head_dim": 32, "tie_word_embeddings": False}
    edits: dict[str, Entry] = {
        "ok_qwen2": {},
        "ok_rope_parameters": {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
        "ok_eos_list": {"eos_token_id": [1, 2]},
        "bad_model_type": {"model_type": "gpt2"},
        "bad_model_type_number": {"model_type": 2},
        "bad_hidden_zero": {"hidden_size": 0},
        "bad_hidden_negative": {"hidden_size": -64},
        "bad_hidden_fraction": {"hidden_size": 64.5},
        "bad_hidden_2_63": {"hidden_size": 2**63},
        "bad_hidden_text": {"hidden_size": "64"},
        "bad_layers_many": {"num_hidden_layers": 2**31},
        "bad_heads_zero": {"num_attention_heads": 0},
        "bad_heads_do_not_divide": {"num_attention_heads": 5},
        "bad_kv_heads_zero": {"num_key_value_heads": 0},
        "bad_kv_heads_do_not_divide": {"num_key_value_heads": 3},
        "bad_head_dim_odd": {"head_dim": 15},
        "bad_head_dim_huge": {"head_dim": 2**40},
        "bad_vocab_huge": {"vocab_size": 2**60},
        "bad_eps_negative": {"rms_norm_eps": -1e-6},
        "bad_eps_text": {"rms_norm_eps": "1e-6"},
        "bad_theta_zero": {"rope_theta": 0},
        "bad_theta_infinite": {"rope_theta": 1e308 * 10},
        "ok_rope_yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        "ok_rope_linear": {"rope_scaling": {"type": "linear", "factor": 2}},
        "ok_rope_dynamic": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.5}},
        "ok_rope_llama3": {"rope_parameters": llama3},
        "bad_rope_longrope": {"rope_scaling": {"rope_type": "longrope", "factor": 4.0}},
        "bad_rope_factor_zero": {"rope_scaling": {"type": "linear", "factor": 0}},
        "bad_rope_factor_huge": {"rope_scaling": {"type": "dynamic", "factor": 1e308}},
        "bad_rope_factor_missing": {"rope_scaling": {"type": "linear"}},
        "bad_rope_factor_text": {"rope_scaling": {"type": "yarn", "factor": "4"}},
        "bad_rope_original_zero": {
            "rope_parameters": {**llama3, "original_max_position_embeddings": 0}
        },
        "bad_rope_original_huge": {
            "rope_parameters": {**llama3, "original_max_position_embeddings": 2**62}
        },
        "bad_rope_frequencies_equal": {"rope_parameters": {**llama3, "high_freq_factor": 1.0}},
        "bad_rope_beta": {"rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": -32}},
        "bad_rope_layer_types": {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
        "bad_rope_list": {"rope_parameters": [1]},
        "bad_activation": {"hidden_act": "gelu"},
        "bad_dtype": {"torch_dtype": "float8"},
        "bad_tie_text": {"tie_word_embeddings": "yes"},
        "bad_eos_text": {"eos_token_id": "two"},
        "bad_eos_negative": {"eos_token_id": -1},
        "ok_window": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
        "ok_mistral": {"model_type": "mistral", "sliding_window": None},
        "ok_qwen3": {"model_type": "qwen3", "head_dim": 32, "attention_bias": True},
        "ok_llama_biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
        "bad_window": {"use_sliding_window": True, "sliding_window": 0},
        "bad_window_layers": {"layer_types": ["full_attention"]},
        "bad_window_without_size": {"layer_types": ["sliding_attention", "full_attention"]},
    }
    files = {name: json.dumps({**good, **edit}).encode() for name, edit in edits.items()}
    files["ok_llama"] = json.dumps(llama).encode()
    files["bad_nothing"] = b""
    files["bad_empty_object"] = b"{}"
    files["bad_list"] = b"[]"
    files["bad_truncated"] = json.dumps(good).encode()[:-10]
    files["bad_duplicate_key"] = json.dumps(good).encode()[:-1] + b', "hidden_size": 128}'
    files["bad_deep_nesting"] = b"[" * 100_000
    files["bad_not_utf8"] = json.dumps(good).encode().replace(b"silu", b"\xff\xfe")
    return files


def trace() -> dict[str, bytes]:
    metadata = {"format": "samebits-trace-1", "input_ids": "[1, 2, 3]", "dtype": "float32"}
    tensors = {"model.norm": tensor("F32", [3, 2], 0, 24)}

    def with_metadata(**edit: str | None) -> bytes:
        edited = {k: v for k, v in {**metadata, **edit}.items() if v is not None}
        return pack({"__metadata__": edited, **tensors}, bytes(24))

    return {
        "ok_trace": with_metadata(),
        "ok_positions": with_metadata(positions="[5, 6, 7]"),
        "ok_unknown_key": with_metadata(colour="blue"),
        "ok_no_tensor": pack({"__metadata__": metadata}, b""),
        "ok_batch_of_one": with_metadata(input_ids="[[1, 2, 3]]"),
        "bad_no_metadata": pack(tensors, bytes(24)),
        "bad_format_missing": with_metadata(format=None),
        "bad_format_other": with_metadata(format="samebits-trace-2"),
        "bad_ids_missing": with_metadata(input_ids=None),
        "bad_ids_empty": with_metadata(input_ids="[]"),
        "bad_ids_text": with_metadata(input_ids="one two"),
        "bad_ids_number": with_metadata(input_ids="7"),
        "bad_ids_negative": with_metadata(input_ids="[-1, 2, 3]"),
        "bad_ids_fraction": with_metadata(input_ids="[1.5, 2, 3]"),
        "bad_ids_huge": with_metadata(input_ids="[99999999999999999999, 2, 3]"),
        "bad_ids_nested": with_metadata(input_ids="[" * 2000 + "1" + "]" * 2000),
        "ok_batch_padded": with_metadata(
            input_ids="[[1, 2, 3], [4, 5, 6]]",
            positions="[[0, 1, 2], [1, 0, 1]]",
            attention_mask="[[1, 1, 1], [0, 1, 1]]",
        ),
        "ok_chunks": with_metadata(chunks="[2, 1]"),
        "bad_batch_mixed": with_metadata(input_ids="[[1, 2], 3]"),
        "bad_batch_ragged": with_metadata(input_ids="[[1, 2], [3]]"),
        "bad_batch_of_other_positions": with_metadata(
            input_ids="[[1, 2, 3], [4, 5, 6]]", positions="[[0, 1], [0, 1], [0, 1]]"
        ),
        "bad_mask_count": with_metadata(attention_mask="[1, 1]"),
        "bad_mask_two": with_metadata(attention_mask="[1, 2, 1]"),
        "bad_chunks_sum": with_metadata(chunks="[2, 2]"),
        "bad_chunks_zero": with_metadata(chunks="[3, 0]"),
        "bad_chunks_negative": with_metadata(chunks="[4, -1]"),
        "bad_chunks_nested": with_metadata(chunks="[[3]]"),
        "bad_chunks_text": with_metadata(chunks="all"),
        "bad_dtype_missing": with_metadata(dtype=None),
        "bad_dtype_other": with_metadata(dtype="float8"),
        "bad_positions_count": with_metadata(positions="[0, 1]"),
        "bad_positions_text": with_metadata(positions="zero"),
        "bad_positions_negative": with_metadata(positions="[-1, 0, 1]"),
        "bad_truncated": with_metadata()[:-5],
    }


def signed(profile: Entry) -> bytes:
    """A profile's text, with the digest that fits."""
    rest = {key: value for key, value in profile.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**rest, "digest": digest}, separators=(",", ":")).encode()


def golden_profile() -> Entry:
    """One of the goldens, cut down: all its rules, an entry or two a section."""
    path = HERE.parent / "golden" / "avx2" / "float32-threads1.profile.json"
    full: Entry = json.loads(path.read_text())
    for key in ("linear", "scores", "context", "sdpa_scores", "sdpa_context"):
        full[key] = full[key][:2]
    full["cpu_flags"] = full["cpu_flags"][:3]
    full["weight_alignment"] = dict(list(full["weight_alignment"].items())[:2])
    for angles in full["functions"]["rotary"]:
        angles["cos"], angles["sin"] = angles["cos"][:4], angles["sin"][:4]
    return full


def profile() -> dict[str, bytes]:
    golden = golden_profile()
    text = signed(golden)
    proof = {"compared": 8, "differing": 0}
    small: Entry = {
        "format": "samebits-profile-1",
        "framework": "torch",
        "framework_version": "2.13.0",
        "cpu": "any",
        "threads": 1,
        "dtype": "float32",
        "rules": [{"bias": "last", "classes": [{"order": {"family": "chain"}}]}],
        "linear": [
            {"in_features": 8, "out_features": 9, "bias": False, "rows": [1, 9], "rule": 0,
             "proof": proof},
        ],
        "scores": [
            {"head_dim": 8, "matrices": [1, 1], "batch": 1, "kv_heads": 1, "rows": [1, 9],
             "keys": "rows", "rule": 0, "proof": proof},
        ],
        "functions": {},
    }  # fmt: skip
    tree = {"family": "tree", "tree": [0, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1]}
    lanes = {"family": "lanes", "stages": [{"lanes": 4, "vectors": 2, "accumulators": 2}],
             "peel": {"of": "w", "least": 1}}  # fmt: skip
    groups = {"family": "chain", "group": [[[0, 2], [1, 3]]], "tail": "descending"}

    def edited(*path: Any, value: Any) -> bytes:
        copied = copy.deepcopy(small)
        place: Any = copied
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return signed(copied)

    def ordered(order: Any) -> bytes:
        return edited("rules", 0, "classes", 0, "order", value=order)

    linear = ("linear", 0)
    without = {key: value for key, value in small.items() if key != "functions"}
    return {
        "ok_golden": text,
        "ok_small": signed(small),
        "ok_no_entries": edited("linear", value=[]),
        "ok_tree": ordered(tree),
        "ok_lanes": ordered(lanes),
        "ok_groups": ordered(groups),
        "ok_unproven": edited(*linear, "proof", value={"compared": 0, "differing": 0}),
        "bad_nothing": b"",
        "bad_list": b"[]",
        "bad_empty_object": b"{}",
        "bad_truncated": text[: len(text) // 2],
        "bad_duplicate_key": text[:-1] + b',"threads":1}',
        "bad_deep_nesting": b'{"format":' + b"[" * 5000,
        "bad_digest": text.replace(b"sha256:", b"sha256:0"),
        "bad_edited": text.replace(b'"threads":1', b'"threads":2'),
        "bad_format_other": edited("format", value="samebits-profile-2"),
        "bad_framework": edited("framework", value="jax"),
        "bad_dtype": edited("dtype", value="float8"),
        "bad_threads_huge": edited("threads", value=2**64),
        "bad_functions_missing": signed(without),
        "bad_rules_empty": edited("rules", value=[]),
        "bad_rule_index": edited(*linear, "rule", value=1),
        "bad_rule_index_negative": edited(*linear, "rule", value=-1),
        "bad_rows_reversed": edited(*linear, "rows", value=[9, 1]),
        "bad_rows_zero": edited(*linear, "rows", value=[0, 1]),
        "bad_rows_huge": edited(*linear, "rows", value=[1, 2**64 - 1]),
        "bad_rows_one": edited(*linear, "rows", value=[1]),
        "bad_keys_word": edited("scores", 0, "keys", value="all"),
        "bad_entry_key_unknown": edited(*linear, "flags", value=1),
        "bad_key_unknown": edited("colour", value="blue"),
        "bad_alignment_list": edited("weight_alignment", value=[0]),
        "bad_order_family": ordered({"family": "spiral"}),
        "bad_order_key_unknown": ordered({"family": "chain", "blocks": 3}),
        "bad_lanes_huge": ordered({**lanes, "stages": [{"lanes": 2**40}]}),
        "bad_tree_left_over": ordered({"family": "tree", "tree": [0, 1, 2]}),
        "bad_tree_twice": ordered({"family": "tree", "tree": [0, 0, -1]}),
    }


def npy(descr: str, shape: str, data: bytes, *, fortran: bool = False, version: int = 1) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def zipped(arrays: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        for name, data in arrays.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return memory.getvalue()


def npz() -> dict[str, bytes]:
    four = b"\0\0\x80\x3f"
    plain = zipped(
        {"lm_head.npy": npy("<f4", "(1,)", four), "input_ids.npy": npy("<i8", "(1,)", bytes(8))}
    )
    return {
        "ok_plain": plain,
        "ok_deflated": zipped({"x.npy": npy("<f4", "(2, 2)", 4 * four)}, zipfile.ZIP_DEFLATED),
        "ok_fortran": zipped({"x.npy": npy("<f4", "(2, 2)", 4 * four, fortran=True, version=2)}),
        "ok_bfloat16": zipped({"x.npy": npy("|V2", "(2,)", four)}),
        "ok_string": zipped({"dtype.npy": npy("<U1", "()", b"b\0\0\0")}),
        "ok_empty": zipped({}),
        "bad_cut": plain[: len(plain) // 2],
        "bad_shape": zipped({"x.npy": npy("<f4", "(9,)", four)}),
        "bad_shape_huge": zipped({"x.npy": npy("<f4", "(4611686018427387904, 4)", four)}),
        "bad_shape_negative": zipped({"x.npy": npy("<f4", "(-1,)", four)}),
        "bad_object": zipped({"x.npy": npy("|O", "(1,)", four)}),
        "bad_big_endian": zipped({"x.npy": npy(">f4", "(1,)", four)}),
        "bad_version": zipped({"x.npy": npy("<f4", "(1,)", four, version=7)}),
        "bad_header": zipped({"x.npy": b"\x93NUMPY\x01\0\xff\xff{"}),
        "bad_no_array": zipped({"x.npy": b"nothing"}),
        "bad_float64": zipped({"x.npy": npy("<f8", "(1,)", b"\x9a\x99\x99\x99\x99\x99\xb9\x3f")}),
        "bad_twice": zipped({"x.npy": npy("<f4", "(1,)", four), "x": npy("<f4", "(1,)", four)}),
    }


def trace_map() -> dict[str, bytes]:
    def rule(**more: Any) -> bytes:
        return json.dumps({"tensors": [{"from": "b", "to": "y", **more}]}).encode()

    return {
        "ok_rename": rule(),
        "ok_number": json.dumps({"tensors": [{"from": "a.{N}", "to": "x.{N}"}]}).encode(),
        "ok_take": json.dumps({"tensors": [{"from": "a.0", "to": "x", "take": [[0, 0]]}]}).encode(),
        "ok_transpose": rule(transpose=[2, 0, 1]),
        "ok_reshape": rule(reshape=["T", -1]),
        "ok_split": rule(
            to=["q", "k"], split={"axis": 1, "sizes": [12, 8]}, then_reshape=["T", -1]
        ),
        "ok_metadata": b'{"metadata": {"input_ids": [1, 2]}, "skip": ["*"]}',
        "bad_key": rule(turn=1),
        "bad_twice": json.dumps({"tensors": [{"from": "a.{N}", "to": "x"}]}).encode(),
        "bad_transpose": rule(transpose=[0, 0, 1]),
        "bad_reshape": rule(reshape=[7]),
        "bad_split": rule(to=["q", "k"], split={"axis": 9, "sizes": [1, 1]}),
        "bad_take": rule(take=[[0, 99]]),
        "bad_list": b"[]",
        "bad_huge": rule(reshape=[2**39, 2**39]),
    }


def items() -> dict[str, bytes]:
    good = '{"question": "1 + 1?", "answer": "1 + 1 = 2 #### 2"}'

    def item(**more: Any) -> bytes:
        return json.dumps({"question": "q", "answer": "#### 1", **more}).encode()

    return {
        "ok_one": good.encode(),
        "ok_crlf_and_blank_lines": f"{good}\r\n\n \t\r\n{good}".encode(),
        "ok_byte_order_mark": b"\xef\xbb\xbf" + good.encode(),
        "ok_other_keys": item(more=[1, {"a": None}]),
        "ok_money": item(answer="$5 each, #### -$1,234.50."),
        "ok_marks": item(answer="#### 1 ##### 2 #### 3"),
        "ok_unicode": item(question="\u0663 + \u0664 \U0001f600?"),
        "bad_nothing": b"",
        "bad_blank": b"\n \n",
        "bad_not_json": good.encode() + b"\n{",
        "bad_several_lines": b'{\n"question": "q",\n"answer": "#### 1"\n}',
        "bad_one_line": f"{good}{good}".encode(),
        "bad_list": f"[{good}]".encode(),
        "bad_nul": good.encode() + b"\0",
        "bad_utf8": good.encode().replace(b"?", b"\xff"),
        "bad_utf16": good.encode("utf-16"),
        "bad_surrogate": b'{"question": "\\ud83d", "answer": "#### 1"}',
        "bad_duplicate_key": b'{"question": "q", "question": "r", "answer": "#### 1"}',
        "bad_deep_nesting": b'{"question": "q", "answer": "#### 1", "x": ' + b"[" * 5000,
        "bad_question_number": item(question=5),
        "bad_question_blank": item(question=" \n"),
        "bad_answer_null": item(answer=None),
        "bad_no_mark": item(answer="1"),
        "bad_mark_without_space": item(answer="####1"),
        "bad_nothing_behind_the_mark": item(answer="#### 1 #### "),
        "bad_words": item(answer="#### two"),
        "bad_unit": item(answer="#### 2 apples"),
        "bad_space_behind": item(answer="#### 42 "),
        "bad_unicode_digit": item(answer="#### \u0662"),
    }


def result_file() -> dict[str, bytes]:
    run = {"format": "samebits-eval-1", "seed": 0}  # what result_file_fuzz.cc runs
    digests = ["sha256:" + hashlib.sha256(ids).hexdigest() for ids in (b"1", b"2,3")]

    def line(item: Any, /, **more: Any) -> dict[str, Any]:
        digest = digests[1 if item == 1 else 0]
        return {
            "item": item, "prompt_digest": digest, "strict_right": True, "flexible_right": False,
            "samples": [{"ids": [1, 2], "text": "#### 1"}], **more,
        }  # fmt: skip

    def lines(*objects: Any, first: Any = run) -> bytes:
        return "".join(json.dumps(one) + "\n" for one in (first, *objects)).encode()

    both = lines(line(1), line(0))
    return {
        "ok_new": b"",
        "ok_run_alone": lines(),
        "ok_both": both,
        "ok_cut": both[:-9],
        "ok_first_line_cut": json.dumps(run, separators=(",", ":")).encode()[:20],
        "ok_of_more_items": lines(line(7), line(0)),
        "ok_other_keys": lines(line(0, more=1)),
        "ok_nul_behind": both + bytes(64),
        "bad_another_run": lines(line(0), first={**run, "seed": 1}),
        "bad_key_missing": lines(line(0), first={"format": "samebits-eval-1"}),
        "bad_key_more": lines(line(0), first={**run, "shots": 5}),
        "bad_format": lines(line(0), first={**run, "format": "samebits-eval-2"}),
        "bad_first_line_list": lines(line(0), first=[run]),
        "bad_text": b"a text of somebody else",
        "bad_text_line": b"a text of somebody else\n",
        "bad_nul": b"\0" + both,
        "bad_blank_line": both + b"\n",
        "bad_line_cut_inside": both[:-9] + b"\n" + both[-80:],
        "bad_list": lines([line(0)]),
        "bad_deep_nesting": lines() + b'{"item":' + b"[" * 5000 + b"\n",
        "bad_duplicate_key": lines() + b'{"item":0,"item":1}\n',
        "bad_twice": lines(line(0), line(0)),
        "bad_item_negative": lines(line(-1)),
        "bad_item_huge": lines(line(2**63)),
        "bad_item_float": lines(line(0.5)),
        "bad_digest": lines(line(0, prompt_digest=digests[1])),
        "bad_digest_number": lines(line(0, prompt_digest=5)),
        "bad_right_number": lines(line(0, strict_right=1)),
        "bad_no_fields": lines({}),
    }


def main() -> None:
    for target in (safetensors, config, trace, profile, npz, trace_map, items, result_file):
        folder = HERE / target.__name__
        folder.mkdir(exist_ok=True)
        for old in [*folder.glob("ok_*"), *folder.glob("bad_*")]:
            old.unlink()
        files = target()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        print(f"{folder.name}: {len(files)} files")


if __name__ == "__main__":
    main()

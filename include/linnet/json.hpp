#pragma once
/// @file
/// Opt-in: safetensors files, Hugging Face directories and tables of JSON lines. Needs nlohmann/json,
/// whose streaming parser reads the JSON in all three.

#include <linnet/io/hugging_face.hpp>
#include <linnet/io/json_lines.hpp>

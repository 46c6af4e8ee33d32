#pragma once
/// @file
/// Opt-in: safetensors files and Hugging Face directories. Needs nlohmann/json, whose streaming
/// parser reads the JSON in both.

#include <linnet/io/hugging_face.hpp>

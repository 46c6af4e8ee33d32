// SPDX-License-Identifier: MIT
// Tokens of an image are those of its patches; a class token is none.
// expect: linnet::image_tokenizer: give embedding::patches
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using Images = ln::embedding::patches<4, 4, 1, 2, true>;
#else
using Images = ln::embedding::patches<4, 4, 1, 2, false>;
#endif
constexpr ln::image_tokenizer_shape shape{.hidden = 8, .width = 2, .codes = 16};
static_assert(ln::image_tokenizer<Images, shape>::parameters() > 0);

// SPDX-License-Identifier: MIT
// What tools/tidy reads by hand: all headers that linnet.hpp does not include.

#include <linnet/linnet.hpp>

#include <linnet/c_interface.hpp>
#include <linnet/compression.hpp>
#include <linnet/gguf.hpp>
#include <linnet/low_rank.hpp>
#include <linnet/numpy.hpp>
#include <linnet/search.hpp>
#if __has_include(<nlohmann/json.hpp>)
#include <linnet/generated_data.hpp>
#include <linnet/json.hpp>
#endif
#if __has_include(<xxhash.h>)
#include <linnet/cached_logits.hpp>
#include <linnet/calibration_file.hpp>
#include <linnet/checkpoint.hpp>
#endif
#if __has_include(<mpi.h>)
#include <linnet/mpi.hpp>
#endif
#if __has_include(<mpi.h>) && __has_include(<xxhash.h>)
#include <linnet/mpi_checkpoint.hpp>
#endif
#if __has_include(<sentencepiece_processor.h>)
#include <linnet/sentencepiece.hpp>
#endif
#if __has_include(<xtensor/xadapt.hpp>)
#include <linnet/xtensor.hpp>
#endif

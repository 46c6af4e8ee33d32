# SPDX-License-Identifier: MIT
# How linnet's own targets (tests, examples, benchmarks, kernels) are built. Nothing here reaches a
# target that only links linnet::linnet.

if(LINNET_OPENMP)
  find_package(OpenMP COMPONENTS CXX)
endif()

if(LINNET_QUICK_BUILD)
  find_program(LINNET_LLD ld.lld) # links what is built to be tested, if it is there
endif()

# linnet_find(PACKAGE [ARGUMENT...]): find_package of what linnet's own programs need; where it is
# missing, says how to do without.
macro(linnet_find package)
  find_package(${package} ${ARGN} QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "linnet's own programs need ${package}, the library does not: install it, or "
                        "configure with -DLINNET_BUILD_TESTS=OFF -DLINNET_BUILD_EXAMPLES=OFF "
                        "-DLINNET_BUILD_BENCHMARKS=OFF")
  endif()
endmacro()

set(linnet_warnings -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wno-psabi)

# linnet_own(TARGET): OpenMP, warnings and sanitizers.
function(linnet_own target)
  if(LINNET_OPENMP AND OpenMP_CXX_FOUND)
    target_link_libraries(${target} PRIVATE OpenMP::OpenMP_CXX)
  endif()
  target_compile_options(${target} PRIVATE ${linnet_warnings})
  if(LINNET_QUICK_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # The compiler looks for memory to free from 1 GB on only: a tenth less time.
    target_compile_options(${target} PRIVATE --param=ggc-min-heapsize=1048576)
  endif()
  if(LINNET_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${LINNET_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${LINNET_SANITIZE})
  endif()
endfunction()

# linnet_quick(TARGET PRIVATE|INTERFACE LEVEL): with LINNET_QUICK_BUILD, takes the kernels from
# linnet::kernels, optimized, and compiles a release of the rest at that level; -O0 takes half the
# time of -O1.
function(linnet_quick target scope level)
  if(LINNET_QUICK_BUILD AND TARGET linnet_kernels)
    target_compile_options(${target} ${scope} $<$<CONFIG:Release>:${level}>)
    target_compile_definitions(${target} ${scope} LINNET_COMPILED_KERNELS)
    target_link_libraries(${target} ${scope} $<LINK_ONLY:linnet_kernels>)
  endif()
endfunction()

# linnet_precompile(TARGET GROUP): compiles <linnet/linnet.hpp> once for all targets of a group, which
# have the same options. A source that does not include it itself goes without.
function(linnet_precompile target group)
  get_property(first GLOBAL PROPERTY linnet_precompiled_${group})
  if(first)
    target_precompile_headers(${target} REUSE_FROM ${first})
  else()
    set_property(GLOBAL PROPERTY linnet_precompiled_${group} ${target})
    target_precompile_headers(${target} PRIVATE <linnet/linnet.hpp>)
  endif()
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    file(STRINGS ${source} line REGEX "^#include <linnet/linnet.hpp>")
    if(NOT line)
      set_source_files_properties(${source} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
    endif()
  endforeach()
endfunction()

# linnet_program(NAME SOURCE... [LINK LIBRARY...]): one program in BUILD/bin. Links linnet::linnet
# unless LINK says what to link instead.
function(linnet_program name)
  cmake_parse_arguments(PARSE_ARGV 1 program "" "" "LINK")
  if(NOT program_LINK)
    set(program_LINK linnet::linnet)
  endif()
  add_executable(${name} ${program_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${program_LINK})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  linnet_own(${name})
  if(LINNET_QUICK_BUILD AND LINNET_LLD)
    target_link_options(${name} PRIVATE -fuse-ld=lld) # a sixth of the usual linker's time
  endif()
  if(LINNET_SANITIZE)
    set(defaults ${PROJECT_SOURCE_DIR}/cmake/sanitizer_defaults.cpp)
    target_sources(${name} PRIVATE ${defaults})
    set_source_files_properties(${defaults} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()

# linnet_compiles(TEST SOURCE [FLAG...]): of a program that is built by hand, LINNET_TEST_PROMISES
# tests that it compiles, without warnings.
function(linnet_compiles test source)
  if(NOT LINNET_TEST_PROMISES OR LINNET_SANITIZE OR CMAKE_CROSSCOMPILING)
    return()
  endif()
  get_target_property(eigen Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
  get_filename_component(source ${source} ABSOLUTE)
  add_test(NAME ${test}
           COMMAND ${CMAKE_CXX_COMPILER} -std=c++20 -fsyntax-only -DLINNET_ONLY_LEVEL=portable
                   ${linnet_warnings} -Werror -I${PROJECT_SOURCE_DIR}/include -isystem ${eigen}
                   ${ARGN} ${source})
endfunction()

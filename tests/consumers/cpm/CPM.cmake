# SPDX-License-Identifier: MIT
# What CPM.cmake does with CPMAddPackage("gh:OWNER/NAME@VERSION"), as it has to be downloaded.
include(FetchContent)

function(CPMAddPackage package)
  if(NOT package MATCHES "^gh:([^/]+/([^@]+))@([0-9.]+)$")
    message(FATAL_ERROR "not understood: ${package}")
  endif()
  FetchContent_Declare(
    ${CMAKE_MATCH_2}
    GIT_REPOSITORY https://github.com/${CMAKE_MATCH_1}.git
    GIT_TAG v${CMAKE_MATCH_3})
  FetchContent_MakeAvailable(${CMAKE_MATCH_2})
endfunction()

# SPDX-License-Identifier: MIT
# An overlay port: it installs the headers of the tree it lies in.
set(VCPKG_BUILD_TYPE release) # there is nothing to build
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)

vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    -DLINNET_BUILD_TESTS=OFF
    -DLINNET_BUILD_EXAMPLES=OFF
    -DLINNET_BUILD_BENCHMARKS=OFF
    -DLINNET_BUILD_KERNELS=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/linnet)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/lib")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")

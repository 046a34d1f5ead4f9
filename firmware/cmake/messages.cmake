# The C codec of the protocol, generated from link/messages.cddl by zcbor, and zcbor's C runtime, which lies inside the
# Python package. Target: messages.
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c "import pathlib, zcbor; print(pathlib.Path(zcbor.__file__).parent)"
  OUTPUT_VARIABLE zcbor_dir OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE zcbor_missing)
if(zcbor_missing)
  message(FATAL_ERROR "no zcbor in ${Python3_EXECUTABLE}: pip install zcbor, or configure with -DPython3_EXECUTABLE=...")
endif()

set(cddl "${CMAKE_CURRENT_SOURCE_DIR}/link/messages.cddl")
set(generated "${CMAKE_BINARY_DIR}/generated")
file(MAKE_DIRECTORY "${generated}")
function(generate direction message)
  set(stem "${generated}/${message}_${direction}")
  add_custom_command(
    OUTPUT "${stem}.c" "${stem}.h" "${generated}/${message}_types.h"
    COMMAND "${Python3_EXECUTABLE}" -c "import zcbor; zcbor.main()" code --cddl "${cddl}" --${direction} --entry-types ${message}
            --default-max-qty 8 --short-names
            --output-c "${stem}.c" --output-h "${stem}.h" --output-h-types "${generated}/${message}_types.h"
    DEPENDS "${cddl}" "${zcbor_dir}/zcbor/zcbor.py"
    WORKING_DIRECTORY "${generated}"
    COMMENT "Generating ${message}_${direction}.c from messages.cddl"
    VERBATIM)
endfunction()
generate(decode request)
generate(encode reply)

add_library(messages STATIC
  "${generated}/request_decode.c" "${generated}/reply_encode.c"
  "${zcbor_dir}/src/zcbor_common.c" "${zcbor_dir}/src/zcbor_decode.c" "${zcbor_dir}/src/zcbor_encode.c")
target_include_directories(messages PUBLIC "${generated}" SYSTEM PUBLIC "${zcbor_dir}/include")
# Canonical: definite lengths and shortest integers, in what is sent and in what is accepted. Speed does not matter here.
target_compile_definitions(messages PUBLIC ZCBOR_CANONICAL)
target_compile_options(messages PRIVATE -w -Os)
